"""What a check has started and not ended: its programs and its folders on trial.

A check runs in a thread, which cannot be stopped: when its time is up, or the doctor is
interrupted, its programs are ended and its folders removed here, and it can start no more.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

PATIENCE_S = 5.0  # srun needs a moment to end its tasks and to give its nodes back
MAKING_S = 1.0
REMOVE_S = 3.0  # a folder may be on a file system that does not answer


class Leftovers:
    """Programs and folders of one check."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never held while a file system may not answer
        self._processes: list[subprocess.Popen[Any]] = []
        self._folders: list[Path] = []
        self._making = 0
        self._closed = False

    @contextmanager
    def _make(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise InterruptedError("the check was ended")
            self._making += 1
        try:
            yield
        finally:
            with self._lock:
                self._making -= 1

    def start(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program in a process group of its own.

        Raises
        ------
        OSError
            It cannot be started, or the check was ended.
        """
        with self._make():
            process = subprocess.Popen(argv, start_new_session=True, **options)
            with self._lock:
                self._processes.append(process)
        return process

    def folder(self, above: Path, prefix: str) -> Path:
        """Make a folder.

        Raises
        ------
        OSError
            It cannot be made, or the check was ended.
        """
        with self._make():
            made = Path(tempfile.mkdtemp(prefix=prefix, dir=above))
            with self._lock:
                self._folders.append(made)
        return made

    def close(self) -> None:
        """Let nothing more be started."""
        with self._lock:
            self._closed = True

    def left(self) -> tuple[list[subprocess.Popen[Any]], list[Path]]:
        """Programs that still run and folders that were made, after a moment for what begins."""
        end = time.monotonic() + MAKING_S
        while self._making and time.monotonic() < end:
            time.sleep(0.01)
        with self._lock:
            return [one for one in self._processes if one.poll() is None], list(self._folders)


def close_all(checks: Sequence[Leftovers]) -> None:
    """End all programs that still run, and remove all folders that are still there."""
    for one in checks:
        one.close()
    left = [one.left() for one in checks]
    end_groups([process for processes, _ in left for process in processes])
    folders = [folder for _, folders in left for folder in folders]
    if folders:
        thread = threading.Thread(target=_remove, args=(folders,), daemon=True)
        thread.start()
        thread.join(REMOVE_S)


def _remove(folders: list[Path]) -> None:
    """Remove folders, into which a thread may just be writing."""
    end = time.monotonic() + REMOVE_S
    for folder in folders:
        while os.path.lexists(folder) and time.monotonic() < end:
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.01)


def end_groups(processes: list[subprocess.Popen[Any]]) -> None:
    """Ask process groups to end, then make them: all at the same time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        end = time.monotonic() + PATIENCE_S
        while processes and time.monotonic() < end:
            processes = [one for one in processes if one.poll() is None]
            time.sleep(0.01)


_current: ContextVar[Leftovers | None] = ContextVar("leftovers", default=None)


def current() -> Leftovers:
    """Those of the check that runs in this thread; new ones outside of a check."""
    return _current.get() or Leftovers()


@contextmanager
def kept_in(leftovers: Leftovers) -> Iterator[None]:
    """Let `current` be these in this thread."""
    token = _current.set(leftovers)
    try:
        yield
    finally:
        _current.reset(token)
