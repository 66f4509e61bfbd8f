"""Whether a dataset is what its settings and the archive would give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preprocess.comm import Communicator
from preprocess.inputs import Input, archive_digest, edited_since, list_inputs
from preprocess.manifest import NAME, read_manifest
from sunpipe.config import to_dict
from sunpipe.errors import DataError, SunpipeError
from sunpipe.files import sha256
from sunpipe.fits import COMPONENTS, check_instrument, read_segment
from sunpipe.settings import ShardSettings
from sunpipe.shards.schema import read_info
from sunpipe.sidecar import keywords_beside
from sunpipe.stage import log


def settings_record(settings: ShardSettings, archive: Path, inputs: list[Input]) -> dict[str, Any]:
    """What decides the content of a dataset."""
    return {**to_dict(settings), "archive": archive_digest(archive, inputs)}


def _why_empty(archive: Path) -> str:
    """Why the archive gives no records, and the remedy."""
    found = sorted(archive.rglob("*.fits"))
    if not found:
        return f"the archive {archive} is empty; run sunpipe fetch first"
    listing = f"is not listed in {NAME}" if (archive / NAME).is_file() else f"there is no {NAME}"
    text = (
        f"the archive {archive} holds {len(found)} FITS files, but {listing}; sunpipe shard reads"
        " what sunpipe fetch has brought, so run sunpipe fetch"
    )
    try:
        header = read_segment(found[0], keywords_beside(found[0], COMPONENTS)).header
        if "TELESCOP" in header:
            check_instrument(header, found[0].name)
    except SunpipeError as error:
        return f"{text}; besides, {error}"
    return text


def read_inputs(archive: Path) -> list[Input]:
    """Records of the archive; an empty archive is an error that names the remedy."""
    manifest = read_manifest(archive)
    inputs = list_inputs(manifest)
    if not inputs:
        raise DataError(_why_empty(archive))
    listed = {archive / entry.path for entry in manifest.values()}
    if stray := sum(path not in listed for path in archive.rglob("*.fits")):
        log(f"{stray} FITS files in {archive} are not in its manifest and are left out")
    return inputs


def why_rebuild(
    folder: Path, archive: Path, inputs: list[Input], wanted: dict[str, Any]
) -> str | None:
    """Why the dataset must be made (again), or None when its description fits."""
    try:
        info = read_info(folder)
    except DataError:
        return "there is no complete dataset yet"
    changed = sorted(key for key in {*info.settings, *wanted}
                     if info.settings.get(key) != wanted.get(key))  # fmt: skip
    if changed:
        return "changed since the last time: " + ", ".join(changed)
    if edited := edited_since(archive, inputs, (folder / "dataset.json").stat().st_mtime):
        return f"{edited} was edited"
    return None


def damaged_files(folder: Path, comm: Communicator) -> list[str]:
    """Files of a published dataset that are not as published; ranks share the reading."""
    info = read_info(folder)
    files = list({**info.shards, **info.files}.items())

    def work() -> list[str]:
        mine = (files[place] for place in comm.share(len(files)))
        return [name for name, sum_ in mine
                if not (folder / name).is_file() or sha256(folder / name) != sum_]  # fmt: skip

    return sorted(name for names in comm.all(work) for name in names)
