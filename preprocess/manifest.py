"""``archive/manifest.parquet``: what was asked for, what is there, and why the rest is not.

Read and written only here. Processes that bring files note what they did in a
journal of their own (`preprocess.acquire.journal`); reading the manifest reads the
journals too, and `merge` takes them into the table.
"""

from __future__ import annotations

import fcntl
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from preprocess.archive import KEYWORDS, relative_path
from sunpipe.errors import DataError
from sunpipe.files import atomic_path
from sunpipe.lock import lock_file

NAME = "manifest.parquet"
SCHEMA = 2
BATCH = 50_000  # rows
STATES = ("wanted", "staged", "fetched", "missing", "failed", "quarantined")
_TYPES = {"bytes": pa.int64(), "final": pa.bool_()}


@dataclass(frozen=True, slots=True)
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
        ``wanted``: to be brought from `url`; ``staged``: on tape, JSOC must bring
        it online; ``fetched``; ``missing``: the archive has no such file;
        ``failed``: the transfer failed; ``quarantined``: the archive's own file
        is damaged, it came twice with the same wrong bytes.
    reason : str
        Why it is not there; empty when wanted or fetched.
    url : str
        Where it comes from.
    time : str
        When this was written, UTC; of two entries the later one holds.
    final : bool
        Whether only ``--retry-failed`` tries it again.
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
    final: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """(record, segment), unique in a manifest."""
        return self.record, self.segment


Manifest = dict[tuple[str, str], Entry]


def _schema() -> pa.Schema:
    columns = [pa.field(field.name, _TYPES.get(field.name, pa.string())) for field in fields(Entry)]
    return pa.schema(columns, metadata={"sunpipe.manifest": str(SCHEMA)})


@contextmanager
def manifest_lock(archive: Path) -> Iterator[None]:
    """Wait for the right to replace the manifest, and hold it."""
    archive.mkdir(parents=True, exist_ok=True)
    with open(archive / ".manifest.lock", "w") as handle:
        lock_file(handle, fcntl.LOCK_EX)
        yield


def _write(archive: Path, table: pa.Table) -> None:
    with atomic_path(archive / NAME) as temporary:
        pq.write_table(table, temporary)


def write_manifest(archive: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically; rows are sorted by record and segment."""
    rows = [asdict(manifest[key]) for key in sorted(manifest)]
    _write(archive, pa.Table.from_pylist(rows, schema=_schema()))


def _current(batch: pa.Table) -> pa.Table:
    """Rows of a table of this version or of the one before, which had no `final`."""
    if batch.column_names == _schema().names:
        return batch
    return batch.append_column("final", pa.array([False] * batch.num_rows, pa.bool_()))


def _batches(archive: Path) -> Iterator[pa.Table]:
    """Rows of the manifest, a part at a time: a large archive's do not fit twice."""
    path = archive / NAME
    if not path.is_file():
        return
    try:
        with pq.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(b"sunpipe.manifest")
            columns = {b"1": _schema().names[:-1], str(SCHEMA).encode(): _schema().names}
            if file.schema_arrow.names != columns.get(version or b""):
                raise DataError(f"{path} is not a manifest of version {SCHEMA}; remove it and run"
                                " sunpipe fetch")  # fmt: skip
            for batch in file.iter_batches(BATCH):
                yield _current(pa.Table.from_batches([batch])).cast(_schema())
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); remove it and run sunpipe fetch"
        ) from None


def _read_table(archive: Path) -> pa.Table:
    return pa.concat_tables([_schema().empty_table(), *_batches(archive)])


def check_entry(entry: Entry, where: Path) -> None:
    """Refuse a path that is not the entry's own, and an unknown state."""
    if entry.path != relative_path(entry.record, entry.segment):
        raise DataError(f"{where} names {entry.path!r} for {entry.record} {entry.segment}")
    if entry.state not in STATES:
        raise DataError(f"{where} has a wrong row for {entry.record} {entry.segment}")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which takes longer than making a million entries does."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _journalled(archive: Path) -> list[Entry]:
    from preprocess.acquire.journal import read_journals

    return read_journals(archive)


def _rows(batch: pa.Table) -> Iterator[Entry]:
    """Entries of a part of the table; words that many rows share are kept once."""
    for name in ("record", "segment", "state", "reason"):  # Arrow makes a string per row
        place = batch.column_names.index(name)
        batch = batch.set_column(place, name, batch.column(name).dictionary_encode())
    columns = []
    for column in batch.itercolumns():
        if pa.types.is_dictionary(column.type):
            shared = column.combine_chunks()
            shared = shared.chunk(0) if isinstance(shared, pa.ChunkedArray) else shared
            words = [sys.intern(word) for word in shared.dictionary.to_pylist()]
            columns.append([None if n is None else words[n] for n in shared.indices.to_pylist()])
        else:
            columns.append(column.to_pylist())
    for row in zip(*columns, strict=True):
        yield Entry(*row)


def read_manifest(archive: Path, keep: Callable[[str], bool] | None = None) -> Manifest:
    """Read the manifest and the journals; an archive without either is an empty manifest.

    Parameters
    ----------
    keep : callable, optional
        Says of a record whether it is wanted; by default all are.

    Raises
    ------
    DataError
        When a file is damaged, of another version, or names a path that is
        not the one its record and segment have.
    """
    path = archive / NAME
    later = _journalled(archive)  # first: a journal is removed after its rows are in the table
    manifest: Manifest = {}
    with _no_collection():
        for batch in _batches(archive):
            for entry in _rows(batch):
                if keep is not None and not keep(entry.record):
                    continue
                check_entry(entry, path)
                if entry.key in manifest:
                    raise DataError(f"{path} has a double row for {entry.record} {entry.segment}")
                manifest[entry.key] = entry
    for entry in later:
        held = manifest.get(entry.key)
        if (keep is None or keep(entry.record)) and (held is None or held.time <= entry.time):
            manifest[entry.key] = entry
    return manifest


def read_entry(archive: Path, record: str, segment: str) -> Entry | None:
    """One row of the table, without reading all of it into memory; journals are left out."""
    path = archive / NAME
    if not path.is_file():
        return None
    wanted = (pc.field("record") == record) & (pc.field("segment") == segment)
    rows = pq.read_table(path, filters=wanted).to_pylist()
    if len(rows) != 1:
        return None
    entry = Entry(**rows[0])
    check_entry(entry, path)
    return entry


def _latest(table: pa.Table) -> pa.Table:
    """Rows sorted by record and segment; of those with one key the last in time."""
    table = table.sort_by([("record", "ascending"), ("segment", "ascending"),
                           ("time", "ascending")])  # fmt: skip
    if table.num_rows < 2:
        return table
    record, segment = (table.column(name).combine_chunks() for name in ("record", "segment"))
    size = table.num_rows - 1
    other: Any = pc.or_(
        pc.not_equal(record.slice(0, size), record.slice(1)),
        pc.not_equal(segment.slice(0, size), segment.slice(1)),
    )
    return table.filter(pa.concat_arrays([other, pa.array([True])]))


def merge(archive: Path, entries: Iterable[Entry]) -> None:
    """Take entries into the manifest; call it under `manifest_lock`."""
    rows = [asdict(entry) for entry in entries]
    if rows:
        added = pa.Table.from_pylist(rows, schema=_schema())
        _write(archive, _latest(pa.concat_tables([_read_table(archive), added])))


def count_states(entries: Iterable[Entry]) -> dict[str, int]:
    """Segments per state, keywords not counted."""
    counts = dict.fromkeys(STATES, 0)
    for entry in entries:
        if entry.segment != KEYWORDS:
            counts[entry.state] += 1
    return counts
