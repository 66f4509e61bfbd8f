"""What a published dataset was made of, and what of it can stay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from preprocess.comm import Communicator
from preprocess.dataset.groups import Group, carry_over
from preprocess.dataset.inputs import Input, edited_since, input_digest, list_inputs, used_entries
from preprocess.dataset.product import Place, Product
from preprocess.manifest import NAME, read_manifest
from sunpipe.config import to_dict
from sunpipe.errors import DataError, SunpipeError
from sunpipe.files import sha256
from sunpipe.fits import COMPONENTS, read_segment
from sunpipe.fitsorigin import check_instrument
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import TABLES, read_info, shard_name
from sunpipe.sidecar import keywords_beside
from sunpipe.stage import log


@dataclass(frozen=True)
class Standing:
    """How a published dataset relates to the archive and the settings of today.

    Attributes
    ----------
    why : str or None
        Why it must be made again or extended; None when it is up to date.
    groups : list of Group
        What is carried over; empty when it is made anew.
    next_number : int
        Of the first new shard.
    fresh : frozenset of str or None
        Records whose candidates go into new groups; None means all.
    """

    why: str | None
    groups: list[Group]
    next_number: int = 0
    fresh: frozenset[str] | None = None


def _why_empty(archive: Path, product: str) -> str:
    """Why the archive gives no records, and the remedy."""
    found = sorted(archive.rglob("*.fits"))
    if not found:
        return f"the archive {archive} is empty; run sunpipe fetch first"
    manifest = read_manifest(archive)
    if manifest:
        series = sorted({record.partition("[")[0] for record, _ in manifest})
        return (f"the archive {archive} holds nothing for shard.product = {product!r}; its series"
                f" are {', '.join(series)}")  # fmt: skip
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


def read_inputs(archive: Path, settings: ShardSettings) -> list[Input]:
    """Records of the archive; an empty archive is an error that names the remedy."""
    manifest = read_manifest(archive)
    inputs = list_inputs(manifest, settings, log)
    if not inputs:
        raise DataError(_why_empty(archive, settings.product))
    listed = {archive / entry.path for entry in manifest.values()}
    if stray := sum(path not in listed for path in archive.rglob("*.fits")):
        log(f"{stray} FITS files in {archive} are not in its manifest and are left out")
    return inputs


def digests_of(archive: Path, inputs: list[Input], product: Product) -> dict[str, str]:
    """Record to the digest of what it is made of."""
    segments, made_with = product.segments, product.made_with
    return {item.record: input_digest(archive, item, segments, made_with) for item in inputs}


def mended(found: Standing, folder: Path, damaged: list[str]) -> Standing:
    """The standing of a dataset some of whose files are `damaged`: their shards are made again."""
    if set(damaged) & set(TABLES):
        return Standing(f"{', '.join(damaged)} missing or damaged", [])
    if found.fresh is None and found.why is not None:
        return found  # all is made anew in any case
    groups = found.groups if found.why else carry_over(_old_groups(folder), set())
    again = [
        replace(group, keep=group.keep and shard_name(group.number) not in damaged)
        for group in groups
    ]
    why = [found.why] if found.why else []
    why.append(f"{', '.join(damaged)} missing or damaged")
    last = max((group.number for group in groups), default=-1)
    number = found.next_number if found.why else last + 1
    return Standing(", ".join(why), again, number, found.fresh or frozenset())


def _old_groups(folder: Path) -> dict[int, list[tuple[str, Place | None, bool]]]:
    """Candidates of a published dataset by shard, in dataset order, accepted or not."""
    groups: dict[int, list[tuple[str, Place | None, bool]]] = {}
    columns = ["shard", "record", "tile_y", "tile_x"]
    for name, accepted in ((TABLES[0], True), (TABLES[1], False)):
        table = pq.read_table(folder / name, columns=columns).to_pydict()
        for shard, record, y, x in zip(*(table[column] for column in columns), strict=True):
            place = None if y is None else (y, x)
            groups.setdefault(shard, []).append((record, place, accepted))
    return groups


def standing(
    folder: Path,
    archive: Path,
    inputs: list[Input],
    digests: dict[str, str],
    product: Product,
    settings: ShardSettings,
) -> Standing:
    """Compare a published dataset with what would be made today."""
    try:
        info = read_info(folder)
        old = dict(zip(*pq.read_table(folder / TABLES[2]).to_pydict().values(), strict=True))
    except (DataError, OSError):
        return Standing("there is no complete dataset yet", [])
    wanted = to_dict(settings)
    if changed := sorted(key for key in {*info.settings, *wanted}
                         if info.settings.get(key) != wanted.get(key)):  # fmt: skip
        return Standing("changed since the last time: " + ", ".join(changed), [])
    gone = {record for record, stated in old.items() if digests.get(record) != stated}
    gone |= _touched(folder, archive, inputs, product)
    new = {record for record in digests if record not in old}
    if not gone and not new:
        return Standing(None, [])
    why = [f"{len(new)} new records"] if new else []
    if gone:
        why.append(f"{len(gone)} records changed, for example {min(gone)}")
    groups = _old_groups(folder)
    return Standing(
        ", ".join(why),
        carry_over(groups, gone),
        max(groups, default=-1) + 1,
        frozenset(new | (gone & set(digests))),
    )


def _touched(folder: Path, archive: Path, inputs: list[Input], product: Product) -> set[str]:
    """Records whose files were edited since, or mended since they were found unreadable."""
    since = (folder / "dataset.json").stat().st_mtime
    found = set(edited_since(archive, inputs, product.segments, since))
    lines = pq.read_table(folder / TABLES[1], columns=["record", "tile_y"]).to_pydict()
    unread = {r for r, y in zip(lines["record"], lines["tile_y"], strict=True) if y is None}
    for item in inputs:
        if item.record in unread:
            paths = [archive / entry.path for _, entry in used_entries(item, product.segments)]
            if any(path.is_file() and path.stat().st_mtime > since for path in paths):
                found.add(item.record)
    return found


def damaged_files(folder: Path, comm: Communicator) -> list[str]:
    """Files of a published dataset that are gone or were changed since; ranks share the reading.

    Only what was written after ``dataset.json`` is read: ``sunpipe verify`` reads all.
    """
    info = read_info(folder)
    since = (folder / "dataset.json").stat().st_mtime
    files = list({**info.shards, **info.files}.items())

    def is_good(name: str, stated: str) -> bool:
        path = folder / name
        if not path.is_file():
            return False
        return path.stat().st_mtime <= since or sha256(path) == stated

    def work() -> list[str]:
        mine = (files[place] for place in comm.share(len(files)))
        return [name for name, stated in mine if not is_good(name, stated)]

    return sorted(name for names in comm.all(work) for name in names)


def plan_lines(groups: list[Group]) -> dict[str, Any]:
    """How many shards stay and how many are made, for a dry run."""
    return {
        "shards_kept": sum(group.keep for group in groups),
        "shards_to_make": sum(not group.keep for group in groups),
    }
