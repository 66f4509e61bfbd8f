"""Which files of the manifest are there, due, or on tape; which belong to one part of an array."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from preprocess.acquire.orders import as_staged, orderable
from preprocess.manifest import Entry
from sunpipe.errors import DataError
from sunpipe.files import sha256

Part = tuple[int, int]
WHOLE: Part = (1, 1)
RETRIED = ("failed", "quarantined", "missing")  # by --retry-failed, where there is an address


def in_part(record: str, part: Part) -> bool:
    """Whether a record belongs to part (I, N): by its hash, whatever else is in the archive."""
    index, count = part
    return int(hashlib.sha256(record.encode()).hexdigest()[:8], 16) % count == index - 1


def is_present(archive: Path, entry: Entry | None, check: bool = False) -> bool:
    """Whether an entry's file is in the archive and still what was fetched.

    The size is looked at; the content is hashed when the file was written
    after it was fetched, and with `check` always.
    """
    if entry is None or entry.state != "fetched":
        return False
    path = archive / entry.path
    if not path.is_file():
        return False
    found = path.stat()
    if found.st_size != entry.bytes:
        return False
    if not check:
        try:
            check = found.st_mtime > datetime.fromisoformat(entry.time).timestamp()
        except ValueError:  # an entry without time
            check = True
    return not check or sha256(path) == entry.sha256


def _is_due(entry: Entry, retry_failed: bool) -> bool:
    if entry.state == "wanted" or (entry.state == "failed" and not entry.final):
        return True
    return retry_failed and entry.state in RETRIED and bool(entry.url)


def sort_out(
    archive: Path,
    held: Iterable[Entry],
    retry_failed: bool = False,
    check: bool = False,
) -> tuple[list[Entry], list[Entry], int]:
    """What is to be brought, what is on tape, and how many files are there already.

    A file that is not what was fetched any more is brought again; it stays
    until the new one replaces it.
    """
    todo: list[Entry] = []
    staged: list[Entry] = []
    kept = 0
    for entry in held:
        if entry.state == "fetched":
            if is_present(archive, entry, check):
                kept += 1
            elif not entry.url.startswith("http"):
                raise DataError(f"{entry.path} is not what was fetched; it is a bundled file, run"
                                " sunpipe fetch --source sample")  # fmt: skip
            else:
                todo.append(entry)
        elif entry.state == "staged":
            staged.append(entry)
        elif _is_due(entry, retry_failed):
            todo.append(entry)
        elif retry_failed and orderable(entry):
            staged.append(as_staged(entry))
    return todo, staged, kept
