"""Progress of a fetch: a bar on a terminal, one plain line per tick in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from sunpipe.stage import log

TICK_S = 15.0


def size_text(count: float) -> str:
    """Bytes in decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


class Progress(AbstractContextManager["Progress"]):
    """Counts files and bytes.

    Parameters
    ----------
    total : int
        Files to bring.
    what : str
        Stands before the counts.
    """

    def __init__(self, total: int, what: str = "fetch", tick_s: float = TICK_S) -> None:
        self.total = total
        self.what = what
        self.states: Counter[str] = Counter()
        self.received = 0
        self._tick_s = tick_s
        self._started = self._ticked = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.total and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
                       TextColumn("{task.fields[note]}"))  # fmt: skip
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(self.what, total=self.total, rate="", note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self.states:
            log(self.line())

    @property
    def done(self) -> int:
        """Files that are finished with, one way or the other."""
        return self.states.total()

    def line(self) -> str:
        """State, rate and time left in one line."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        text = (f"{self.what} {self.done}/{self.total} files, {size_text(self.received)},"
                f" {size_text(self.received / elapsed)}/s")  # fmt: skip
        if 0 < self.done < self.total:
            left = elapsed / self.done * (self.total - self.done)
            text += f", ETA {timedelta(seconds=round(left))}"
        other = {state: n for state, n in self.states.items() if state != "fetched"}
        return text + "".join(f", {n} {state}" for state, n in sorted(other.items()))

    def add_bytes(self, count: int) -> None:
        """Bytes came in."""
        self.received += count

    def waiting(self, count: int) -> None:
        """Files are at another process; a line per tick says so."""
        if time.monotonic() - self._ticked > self._tick_s:
            self._ticked = time.monotonic()
            log(f"{self.what}: waiting for {count} files that another process brings")

    def finish(self, state: str) -> None:
        """One file is finished with."""
        self.states[state] += 1
        if self._bar is not None:
            elapsed = max(time.monotonic() - self._started, 1e-3)
            other = ", ".join(f"{n} {s}" for s, n in self.states.items() if s != "fetched")
            self._bar.update(self._task, completed=self.done, note=other,
                             rate=f"{size_text(self.received / elapsed)}/s")  # fmt: skip
        elif time.monotonic() - self._ticked > self._tick_s:
            self._ticked = time.monotonic()
            log(self.line())
