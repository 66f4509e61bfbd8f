"""Files of a run that is being written, or was damaged: what can be read, and never an error."""

from __future__ import annotations

import json
import math
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 16  # some dozens of rows
MOST_BYTES = 1 << 20  # of a JSON file that is read whole


def _open_regular(path: Path) -> int | None:
    """A file descriptor of a regular file; a pipe or device would never end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # a name from a file may hold a zero byte
        return None
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    return None


def _read_end(path: Path, most: int) -> tuple[bytes, bool]:
    """The last `most` bytes of a file, and whether that is all of it."""
    handle = _open_regular(path)
    if handle is None:
        return b"", True
    try:
        size = os.fstat(handle).st_size
        return os.pread(handle, most, max(size - most, 0)), size <= most
    except OSError:  # a file system that fails while it is read
        return b"", True
    finally:
        os.close(handle)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing, torn, too large or something else."""
    content, whole = _read_end(path, MOST_BYTES)
    with suppress(ValueError, RecursionError):
        found = json.loads(content)
        if whole and isinstance(found, dict):
            return found
    return {}


def last_rows(path: Path, most: int = TAIL_BYTES) -> list[dict[str, Any]]:
    """Rows at the end of a file of JSON lines; torn and foreign lines are left out."""
    content, whole = _read_end(path, most)
    lines = content.split(b"\n")
    rows = []
    for line in lines if whole else lines[1:]:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def last_words(path: Path, most: int = 4096) -> str:
    """The last line of a log that holds something; what Slurm adds is the last resort."""
    content, _ = _read_end(path, most)
    lines = [line for line in content.decode(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
    return (own or lines or [""])[-1]


def number(value: object) -> float | None:
    """A finite number; None for anything else, NaN and booleans included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def modified(path: Path) -> float | None:
    """When a file was written; None where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
