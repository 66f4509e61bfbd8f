"""Digests of large files, remembered for as long as the file is the same one.

SHA-256 of 2 GB takes seconds, which a search that maps the file would pay every
time. A digest is remembered beside the identity of the file: device, inode, size,
and the times of its content and of its inode to the nanosecond. The kernel sets
the latter at every change and nobody can set it back, so a file that was written
to, replaced or restored has another identity and is read again. What this does
not see is a disk that changes bits by itself; ``index verify`` always reads.

A file younger than `SETTLED_S` is not remembered: two changes may share one tick
of the file system's clock.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import platformdirs

from sunpipe.errors import DataError
from sunpipe.files import read_json, sha256, write_json

LARGE = 64 << 20  # bytes; smaller files are read every time
SETTLED_S = 2.0


def _identity(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _note(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path)).hexdigest()
    return Path(platformdirs.user_cache_path("sunpipe")) / "digests" / f"{name}.json"


def known_sha256(path: Path) -> str:
    """SHA-256 of a file, from memory when the very same large file was read before."""
    path = Path(path).resolve()
    before = _identity(path)
    if before[2] < LARGE:
        return sha256(path)
    note = _note(path)
    with suppress(DataError):  # no note yet, or one that was cut short: the file is read
        found = read_json(note)
        if isinstance(found, dict) and found.get("identity") == before:
            return str(found["sha256"])
    value = sha256(path)
    settled = time.time() - max(before[3:]) / 1e9 > SETTLED_S
    if settled and _identity(path) == before:
        with suppress(OSError):  # a home that cannot be written costs time, not safety
            write_json(note, {"path": str(path), "identity": before, "sha256": value})
    return value
