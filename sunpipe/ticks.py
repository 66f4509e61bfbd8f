"""Progress of a long command: a bar on a terminal, one plain line per tick in a log."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

TICK_S = 15.0


class Ticks(AbstractContextManager["Ticks"]):
    """Counts what is done.

    Parameters
    ----------
    total : int
        How many there are.
    what : str
        Of what, in the plural, for example ``shards``.
    quiet : bool
        Say nothing: for ranks other than 0.
    tick_s : float
        Seconds between lines in a log.
    """

    def __init__(self, total: int, what: str, quiet: bool = False, tick_s: float = TICK_S) -> None:
        self.total, self.what, self.done = total, what, 0
        self._quiet = quiet
        self._tick_s = tick_s
        self._started = self._ticked = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Ticks:
        if self.total > 1 and not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                       TimeRemainingColumn())  # fmt: skip
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.what, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def line(self) -> str:
        """Count, rate and time left in one line."""
        elapsed = max(time.monotonic() - self._started, 1e-3)
        text = f"{self.done}/{self.total} {self.what}, {self.done / elapsed:.3g}/s"
        if 0 < self.done < self.total:
            left = elapsed / self.done * (self.total - self.done)
            text += f", ETA {timedelta(seconds=round(left))}"
        return text

    def tick(self) -> None:
        """One more is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
        elif not self._quiet and time.monotonic() - self._ticked > self._tick_s:
            self._ticked = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)
