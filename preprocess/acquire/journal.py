"""A journal per process: what it brought, one JSON line each, on disk before it goes on.

``archive/journal/<host>-<process>-<random>.jsonl``. The file is locked while its
process lives; those of dead processes are taken into the manifest by whoever
comes next. A last line that a kill has torn counts as never written. Processes
share an archive (`working`), and one of them asks JSOC at a time (`asking`).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from preprocess.acquire.partial import sweep_empty
from preprocess.manifest import Entry, check_entry, manifest_lock, merge, read_entry
from sunpipe.errors import DataError
from sunpipe.files import fsync_directory, naming
from sunpipe.lock import lock_file, sweep
from sunpipe.stage import log

FOLDER = "journal"
MERGE_LINES = 100_000


def stamp(held: Entry | None = None) -> str:
    """Current time, UTC, ISO 8601 with microseconds: entries are put in order by it.

    It is later than that of the entry `held`, which is to be replaced, even when
    that was written where the clock is ahead.
    """
    now = datetime.now(UTC)
    if held is not None and held.time:
        with suppress(ValueError, TypeError, OverflowError):  # no time of ours
            now = max(now, datetime.fromisoformat(held.time) + timedelta(microseconds=1))
    return now.isoformat(timespec="microseconds")


class Journal:
    """The journal of this process; use `open_journal`."""

    def __init__(self, archive: Path, handle: IO[bytes], path: Path) -> None:
        self.archive = archive
        self.path = path
        self.lines = 0
        self._handle = handle

    def write(self, entries: Iterable[Entry]) -> None:
        """Append entries; they are on disk when this returns."""
        lines = [json.dumps(asdict(entry)) for entry in entries]
        if not lines:
            return
        with naming(self.path):
            self._handle.write("".join(f"{line}\n" for line in lines).encode())
            self._handle.flush()
            os.fsync(self._handle.fileno())
        self.lines += len(lines)
        if self.lines >= MERGE_LINES:
            self.merge()

    def merge(self) -> None:
        """Take what was written into the manifest and begin again."""
        if self.lines:
            with manifest_lock(self.archive):
                merge(self.archive, _read(self.path))
                self._handle.truncate(0)  # in append mode the next line begins at 0
            self.lines = 0


@contextmanager
def open_journal(archive: Path) -> Iterator[Journal]:
    """A journal that is merged when the block ends, whatever ends it."""
    folder = archive / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
    hidden = folder / f".tmp-{name}"
    with open(hidden, "ab") as handle:
        lock_file(handle, fcntl.LOCK_EX)
        os.rename(hidden, folder / name)  # nobody sees it unlocked
        fsync_directory(folder)
        journal = Journal(archive, handle, folder / name)
        try:
            yield journal
        finally:
            journal.merge()
            journal.path.unlink()


def _read(path: Path) -> list[Entry]:
    """Entries of one journal; a torn last line is left out."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:  # merged meanwhile
        return []
    return _entries(raw, path)


def _entries(raw: bytes, path: Path) -> list[Entry]:
    entries = []
    for place, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines()):
        try:
            entry = Entry(**json.loads(line))
            check_entry(entry, path)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {place + 1}: {error}; remove it and run sunpipe fetch"
                            ) from None  # fmt: skip
        entries.append(entry)
    return entries


class Others:
    """What other processes write while this one works, read as it grows.

    Parameters
    ----------
    mine : Path
        Journal of this process, which is left out.
    """

    def __init__(self, archive: Path, mine: Path) -> None:
        self._archive = archive
        self._mine = mine
        self._read: dict[Path, int] = {}
        self._latest: dict[tuple[str, str], Entry] = {}

    def _follow(self) -> None:
        for path in (self._archive / FOLDER).glob("*.jsonl"):
            if path == self._mine:
                continue
            try:
                with open(path, "rb") as handle:
                    start = self._read.get(path, 0)
                    if os.fstat(handle.fileno()).st_size < start:  # merged, begun again
                        start = 0
                    handle.seek(start)
                    raw = handle.read()
            except FileNotFoundError:  # merged
                continue
            whole = raw.rfind(b"\n") + 1
            self._read[path] = start + whole
            for entry in _entries(raw[:whole], path):
                held = self._latest.get(entry.key)
                if held is None or held.time <= entry.time:
                    self._latest[entry.key] = entry

    def find(self, held: Entry, merged: bool = False) -> Entry | None:
        """The entry that another process made after `held` for the same segment.

        Parameters
        ----------
        merged : bool
            Also look into the table, which takes longer.
        """
        self._follow()
        found = self._latest.get(held.key)
        if merged and (found is None or found.time <= held.time):
            found = read_entry(self._archive, *held.key)
        return found if found is not None and found.time > held.time else None


def read_journals(archive: Path) -> list[Entry]:
    """Entries of all journals, in the order of their times."""
    entries = [entry for path in (archive / FOLDER).glob("*.jsonl") for entry in _read(path)]
    return sorted(entries, key=lambda entry: entry.time)


def merge_dead(archive: Path) -> int:
    """Take the journals of processes that are gone into the manifest; returns how many."""
    with ExitStack() as held:
        dead = []
        for path in sorted((archive / FOLDER).glob("*.jsonl")):
            try:
                # for writing: NFS grants an exclusive lock on nothing else
                handle = held.enter_context(open(path, "rb+"))
                lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):  # merged meanwhile, or its writer lives
                continue
            dead.append(path)
        if dead:
            with manifest_lock(archive):
                merge(archive, [entry for path in dead for entry in _read(path)])
                for path in dead:
                    path.unlink(missing_ok=True)
    return len(dead)


@contextmanager
def working(archive: Path) -> Iterator[None]:
    """Share the archive with others that write into it.

    Journals of dead processes are taken into the manifest. Who is alone also
    removes the temporary files of a process that died, which would be those of
    a living one otherwise; to look for them takes long in a large archive, so
    that it is done only after a death.
    """
    (archive / FOLDER).mkdir(parents=True, exist_ok=True)
    unswept = archive / FOLDER / ".unswept"
    with open(archive / ".lock", "a+") as handle:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            log("another process is working in this archive; the two share the work")
            lock_file(handle, fcntl.LOCK_SH)
            alone = False
        if merge_dead(archive):
            unswept.touch()
        if alone:
            sweep(archive / FOLDER)
            if unswept.exists():
                sweep(archive)
                sweep_empty(archive)
                unswept.unlink()
            lock_file(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def asking(archive: Path) -> Iterator[None]:
    """One query of an archive at a time; others wait."""
    with open(archive / ".query.lock", "a+") as handle:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another process is asking the archive; waiting for it")
            lock_file(handle, fcntl.LOCK_EX)
        yield
