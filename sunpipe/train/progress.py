"""What a training is doing and since when: told by its own thread, read by the one that watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTING_UP = "setting up"  # until the first step is done: all phases, caches and kernels are new
STEP, DATA = "a step", "waiting for data"
SLOWER = 10.0  # than the longest step so far: no step of a training is that much slower
PATIENCE = 6.0  # times `hang_s`, for all that is no step
AGAIN = 3.0  # times the longest so far, for what is no step
START_S = 120.0  # for setting up at least: a busy node reads libraries and compiles C
SPARE_S = 60.0  # for stacks to be collected before exchanges give up


def exchange_s(timeout_s: float, hang_s: float) -> float:
    """How long an exchange between ranks may wait.

    Where the clocks of all ranks are watched, they decide what takes too long: the
    others must wait for a rank that writes a checkpoint for as long as it may, also
    for one that may take three times what the first took.

    Parameters
    ----------
    timeout_s : float
        Where nobody watches (`hang_s` is 0).
    """
    longest = max(AGAIN * PATIENCE * hang_s, START_S) + SPARE_S
    return max(timeout_s, longest) if hang_s else timeout_s


class Progress:
    """The clock of a training's thread.

    A step may take `hang_s`, or 10 times as long as the slowest one so far: then a
    training that is slow but goes on is not taken for one that hangs. The first step
    and its wait for data count as the slowest so far, once they are over. Everything
    else (setting up with the first step, a checkpoint, images, a batch of metrics) may take six
    times `hang_s`, or three times its longest so far; setting up two minutes at least.

    Parameters
    ----------
    hang_s : float
        Seconds, above 0; infinite to never complain.

    Attributes
    ----------
    steps : int
        Done so far, in this process.
    doing : str
        What is going on.
    """

    def __init__(self, hang_s: float) -> None:
        self.hang_s, self.steps, self.doing = hang_s, 0, SETTING_UP
        self._since = time.monotonic()
        self._longest: dict[str, float] = {}
        self._first: float | None = None  # when the first step began to wait, then to work

    def begin(self, doing: str) -> None:
        """End what was done until now, and begin something else, or the same once more."""
        now = time.monotonic()
        self._longest[self.doing] = max(now - self._since, self._longest.get(self.doing, 0.0))
        self.doing, self._since = doing, now

    def alive(self) -> None:
        """A part of what is done is done, and the same goes on."""
        self.begin(self.doing)

    def ready(self) -> None:
        """The next batch is asked for."""
        if self.steps:
            self.begin(DATA)
        else:
            self._first = time.monotonic()

    def fed(self) -> None:
        """It is there."""
        if self.steps:
            self.begin(STEP)
        else:
            self._end_first(DATA)

    def stepped(self) -> None:
        """A step is done, and whatever belongs to it goes on."""
        if not self.steps:
            self._end_first(STEP)
        self.steps += 1
        self.begin(STEP)

    def _end_first(self, doing: str) -> None:
        now = time.monotonic()
        self._longest[doing] = now - (now if self._first is None else self._first)
        self._first = now

    @contextmanager
    def during(self, doing: str) -> Iterator[None]:
        """Around something that is no step."""
        before = self.doing
        self.begin(doing)
        try:
            yield
        finally:
            self.begin(before)

    def age_s(self) -> float:
        """Seconds since it began what it is doing."""
        return time.monotonic() - self._since

    def limit_s(self) -> float:
        """How long that may take."""
        longest = self._longest.get(self.doing, 0.0)
        if self.doing in (STEP, DATA):
            return max(self.hang_s, SLOWER * longest)
        least = START_S if self.doing == SETTING_UP else 0.0
        return max(PATIENCE * self.hang_s, AGAIN * longest, least)

    def forgive(self, seconds: float) -> None:
        """Leave out a time in which the whole process was stopped, as Slurm does to suspend it."""
        self._since += seconds
        if self._first is not None:
            self._first += seconds
