"""``archive/manifest.parquet``: what was asked for, what is there, and why the rest is not.

Read and written only here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.archive import KEYWORDS, relative_path
from sunpipe.errors import DataError
from sunpipe.files import atomic_path

NAME = "manifest.parquet"
SCHEMA = 1
STATES = ("fetched", "missing", "failed")
_TYPES = {"bytes": pa.int64()}


@dataclass(frozen=True)
class Entry:
    """One segment of one record.

    Attributes
    ----------
    record : str
        JSOC record-set string without braces.
    segment : str
        Segment name, or ``keywords`` for the record's ``keywords.json``.
    path : str
        Relative to the archive, with slashes; set for every state.
    sha256 : str
        Of the file as fetched; empty unless `state` is ``fetched``.
    bytes : int
        Size of the file; 0 unless fetched.
    state : str
        ``fetched``; ``missing``: the archive has no such file; ``failed``:
        the transfer failed and a second fetch will try again.
    reason : str
        Why it is not there; empty when fetched.
    url : str
        Where it came from.
    time : str
        When, UTC.
    """

    record: str
    segment: str
    path: str
    sha256: str
    bytes: int
    state: str
    reason: str
    url: str
    time: str

    @property
    def key(self) -> tuple[str, str]:
        """(record, segment), unique in a manifest."""
        return self.record, self.segment


Manifest = dict[tuple[str, str], Entry]


def _schema() -> pa.Schema:
    columns = [pa.field(field.name, _TYPES.get(field.name, pa.string())) for field in fields(Entry)]
    return pa.schema(columns, metadata={"sunpipe.manifest": str(SCHEMA)})


def write_manifest(archive: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically; rows are sorted by record and segment."""
    rows = [asdict(manifest[key]) for key in sorted(manifest)]
    with atomic_path(archive / NAME) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema()), temporary)


def read_manifest(archive: Path) -> Manifest:
    """Read the manifest; an archive without one is an empty manifest.

    Raises
    ------
    DataError
        When the file is damaged, of another version, or names a path that is
        not the one its record and segment have.
    """
    path = archive / NAME
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); remove it and run sunpipe fetch"
        ) from None
    version = (table.schema.metadata or {}).get(b"sunpipe.manifest")
    if version != str(SCHEMA).encode() or table.column_names != _schema().names:
        raise DataError(f"{path} is not a manifest of version {SCHEMA}; remove it and run sunpipe"
                        " fetch")  # fmt: skip
    manifest: Manifest = {}
    for row in table.to_pylist():
        entry = Entry(**row)
        if entry.path != relative_path(entry.record, entry.segment):
            raise DataError(f"{path} names {entry.path!r} for {entry.record} {entry.segment}")
        if entry.state not in STATES or entry.key in manifest:
            raise DataError(f"{path} has a wrong or double row for {entry.record} {entry.segment}")
        manifest[entry.key] = entry
    return manifest


def count_states(manifest: Manifest) -> dict[str, int]:
    """Segments per state, keywords not counted."""
    counts = dict.fromkeys(STATES, 0)
    for entry in manifest.values():
        if entry.segment != KEYWORDS:
            counts[entry.state] += 1
    return counts
