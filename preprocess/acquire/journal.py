"""A journal per process: what it brought, one JSON line each, on disk before it goes on.

``archive/journal/<host>-<process>-<random>.jsonl``. The file is locked while its
process lives; those of dead processes are taken into the manifest by whoever
comes next. A last line that a kill has torn counts as never written.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from preprocess.manifest import Entry, check_entry, manifest_lock, merge
from sunpipe.errors import DataError
from sunpipe.files import fsync_directory

FOLDER = "journal"
MERGE_LINES = 100_000


def stamp() -> str:
    """Current time, UTC, ISO 8601 with microseconds: entries are put in order by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


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
        fcntl.flock(handle, fcntl.LOCK_EX)
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
                handle = held.enter_context(open(path, "rb"))
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (FileNotFoundError, BlockingIOError):  # merged meanwhile, or its writer lives
                continue
            dead.append(path)
        if dead:
            with manifest_lock(archive):
                merge(archive, [entry for path in dead for entry in _read(path)])
                for path in dead:
                    path.unlink(missing_ok=True)
    return len(dead)
