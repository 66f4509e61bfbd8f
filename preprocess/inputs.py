"""The records of the archive that a dataset is made of, and how one is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess.archive import KEYWORDS, parse_record
from preprocess.manifest import Entry, Manifest
from preprocess.patch import number
from preprocess.quality import Policy, refusal
from sunpipe.errors import DataError
from sunpipe.files import digest, sha256
from sunpipe.fits import COMPONENTS, VectorRecord, read_vector
from sunpipe.fitsfile import FitsError
from sunpipe.sidecar import read_sidecar

USED = (*COMPONENTS, KEYWORDS)


@dataclass(frozen=True)
class Input:
    """One record of the archive.

    Attributes
    ----------
    record : str
        JSOC record-set string.
    harpnum : int
    t_rec : str
    entries : dict
        Segment name to manifest entry, for the segments a dataset uses.
    """

    record: str
    harpnum: int
    t_rec: str
    entries: dict[str, Entry]


def list_inputs(manifest: Manifest) -> list[Input]:
    """All records of the manifest by HARP, time and record string."""
    records: dict[str, dict[str, Entry]] = {}
    for (record, segment), entry in manifest.items():
        held = records.setdefault(record, {})
        if segment in USED:
            held[segment] = entry
    inputs = []
    for record, entries in records.items():
        name = parse_record(record)
        inputs.append(Input(record, name.harpnum, name.t_rec, entries))
    return sorted(inputs, key=lambda item: (item.harpnum, item.t_rec, item.record))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def archive_digest(archive: Path, inputs: Iterable[Input]) -> str:
    """Identity of what a dataset is made of: states and digests of the used files.

    The manifest tells the digests; sizes are looked up, so that a file that was
    truncated or removed since counts as a change.
    """
    return digest(
        [
            [item.record, segment, entry.state, entry.sha256, _size(archive / entry.path)]
            for item in inputs
            for segment, entry in sorted(item.entries.items())
        ]
    )


def edited_since(archive: Path, inputs: Iterable[Input], time_s: float) -> str | None:
    """A used file that was written after `time_s` and is not what was fetched."""
    for item in inputs:
        for entry in item.entries.values():
            path = archive / entry.path
            if path.is_file() and path.stat().st_mtime > time_s and sha256(path) != entry.sha256:
                return entry.path
    return None


def _damaged(archive: Path, item: Input) -> str | None:
    """Which file is not what was fetched."""
    for entry in item.entries.values():
        path = archive / entry.path
        if entry.state == "fetched" and sha256(path) != entry.sha256:
            return f"{path.name} is not what was fetched; run sunpipe fetch again"
    return None


def _stored_keywords(archive: Path, item: Input) -> dict[str, Any]:
    """Keywords that came beside the segments of a record; empty when none did."""
    entry = item.entries.get(KEYWORDS)
    if entry is None or entry.state != "fetched":
        return {}
    try:
        return read_sidecar(archive / entry.path, COMPONENTS)
    except DataError as error:
        raise FitsError("changed", f"{error}; run sunpipe fetch again") from None


def _check_quality(header: Mapping[str, Any], policy: Policy, required: bool) -> None:
    quality = number(header, "QUALITY")
    if quality is None:
        if required:
            raise FitsError("quality", "the record has no QUALITY")
    elif why := refusal(int(quality), policy):
        raise FitsError("quality", why)


def load(archive: Path, item: Input, policy: Policy) -> VectorRecord:
    """Read a record of the archive, or say why it cannot be used.

    Raises
    ------
    FitsError
        With a reason of `read_vector`, or ``missing_segment``, ``missing_file``,
        ``changed``, ``wrong_record``, ``quality``.
    """
    keywords = _stored_keywords(archive, item)
    _check_quality(keywords, policy, required=False)
    for segment in COMPONENTS:
        entry = item.entries.get(segment)
        if entry is None:
            raise FitsError("missing_segment", f"{segment} was not fetched")
        if entry.state != "fetched":
            raise FitsError("missing_segment", f"{segment} is {entry.state}: {entry.reason}")
        if not (archive / entry.path).is_file():
            raise FitsError("missing_file", f"{entry.path} is gone; run sunpipe fetch again")
    series = parse_record(item.record).series
    br, bt, bp = (archive / item.entries[segment].path for segment in COMPONENTS)
    found = read_vector(br, bt, bp, keywords=keywords, series=series)
    if damage := _damaged(archive, item):
        raise FitsError("changed", damage)
    if found.record != item.record:
        raise FitsError("wrong_record", f"the files are {found.record}, not {item.record}")
    _check_quality(found.header, policy, required=True)
    return found
