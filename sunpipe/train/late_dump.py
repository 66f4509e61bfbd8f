"""Stacks of a process whose interpreter does not come back from a library."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from sunpipe.files import TEMPORARY_PREFIX

FEED_S = 1.0  # between two times that it is put off
SPARE_S = 2.0  # after the limit of what is being done
NEVER_S = 1e6  # limits beyond that are none
WHOLE_S = 0.1  # without a new line: all are there


def late_path(folder: Path, rank: int) -> Path:
    """Where a rank's stacks appear."""
    return folder / f"{TEMPORARY_PREFIX}stacks-rank-{rank}.txt"


def late_text(folder: Path, rank: int, patience_s: float) -> str:
    """What a `LateDump` of another process has written, awaited; empty without.

    It appears line by line, so it is whole once it has stopped growing. After
    `patience_s` it is what there is.
    """
    end = time.monotonic() + patience_s
    known = ""
    while True:
        with suppress(OSError):
            text = late_path(folder, rank).read_text(encoding="utf-8", errors="replace")
            if text and text == known:
                return text
            known = text
        if time.monotonic() >= end:
            return known
        time.sleep(WHOLE_S)


class LateDump:
    """Stacks from outside of the interpreter, for a thread that does not give it back.

    A library that waits inside C with the interpreter's lock keeps every thread of
    ours from running. `faulthandler` has one that needs no lock: unless it is put
    off in time, it writes what it sees.
    """

    def __init__(self, folder: Path | None, rank: int) -> None:
        self._path = None if folder is None else late_path(folder, rank)
        self._file: TextIO | None = None
        self._lock = threading.Lock()  # the watching thread feeds, the training's closes
        self._fed = 0.0
        if self._path is not None:
            with suppress(OSError):  # a node that does not see the folder yet trains all the same
                self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115

    def feed(self, now: float, limit_s: float) -> None:
        """Put it off once more."""
        with self._lock:
            if self._file is not None and now - self._fed > FEED_S and limit_s < NEVER_S:
                self._fed = now
                faulthandler.dump_traceback_later(limit_s + SPARE_S, file=self._file)

    def forget(self) -> None:
        """Drop what was written while the whole process was stopped."""
        with self._lock:
            if self._file is not None:
                with suppress(OSError):  # after so long the file system may not know it any more
                    os.ftruncate(self._file.fileno(), 0)
                    os.lseek(self._file.fileno(), 0, os.SEEK_SET)

    def close(self) -> None:
        """Call it off for good; nothing is left of it if nothing was written."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                faulthandler.cancel_dump_traceback_later()
        if file is not None and self._path is not None:  # who feeds need not wait for the disk
            with suppress(OSError):  # as in `forget`: no reason to fail a training that is done
                with file:
                    empty = os.fstat(file.fileno()).st_size == 0
                if empty:
                    self._path.unlink(missing_ok=True)


def keep_late_dumps(folder: Path, report: Callable[[str], None]) -> None:
    """Name what a `LateDump` of an earlier start has written; call it under the run's lock."""
    for left in sorted(folder.glob(f"{TEMPORARY_PREFIX}stacks-rank-*.txt")):
        if not left.stat().st_size:
            left.unlink()
            continue
        stamp = datetime.fromtimestamp(left.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%SZ")
        rank = left.stem.rpartition("-")[2]
        kept = left.rename(folder / f"hang-{stamp}-rank-{rank}.txt")
        report(f"rank {rank} of an earlier start hung inside a library; its stacks: {kept.name}")
