"""Reading in the background: a scrape gets what was read last and waits for nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hpc.monitor.samples import Sample, sample
from sunpipe.errors import DataError
from sunpipe.stage import log

Read = Callable[[], Sequence[Sample]]
REST = 9.0  # times as long as reading took: reading has a tenth of the time at most
STALE = 3.0  # intervals


class NotHere(Exception):
    """There is nothing to read on this machine, which is no failure."""


@dataclass
class Collector:
    """One part of what is served, read again and again by a thread of its own.

    Attributes
    ----------
    read : callable
        Returns samples. An error costs the samples of this part until it reads
        well again: a gap, not zeros and not old values.
    interval : float
        Seconds between two readings, at least.
    """

    name: str
    read: Read
    interval: float
    clock: Callable[[], float] = time.time
    samples: Sequence[Sample] = ()
    error: str = ""
    absent: bool = False
    known: bool = False  # it was read well at least once
    finished: float | None = None
    seconds: float = 0.0
    begun: float | None = field(default=None)

    def once(self) -> None:
        """Read now."""
        self.begun = self.clock()
        started = time.perf_counter()
        error, absent = "", False
        found: Sequence[Sample] = ()
        try:
            found = self.read()
        except NotHere as reason:
            # what was here and is gone fails: a configless client says the same when the
            # controller is away for a moment as where there never was a Slurm
            error, absent = str(reason), not self.known
        except (DataError, OSError) as reason:
            error = str(reason)
        except Exception as reason:  # a fault of ours must not end the thread, but is shown
            error = f"{type(reason).__name__}: {reason}"
        if error and error != self.error:
            log(f"{self.name}: {error}")
        elif self.error and not error:
            log(f"{self.name}: reads well again")
        self.known = self.known or not error
        self.seconds = time.perf_counter() - started
        self.samples, self.error, self.absent = found, error, absent
        self.finished = self.clock()

    @property
    def patience(self) -> float:
        """Seconds after which what was read is too old to be shown."""
        return STALE * max(self.interval, (1 + REST) * self.seconds, 5.0)

    def fresh(self) -> bool:
        """Whether it was read well, and lately."""
        if self.finished is None or self.error:
            return False
        return self.clock() - self.finished <= self.patience

    def hangs(self) -> bool:
        """Whether the first reading takes too long."""
        return (self.finished is None and self.begun is not None
                and self.clock() - self.begun > self.patience)  # fmt: skip

    def collect(self) -> list[Sample]:
        """Samples to show now, with those about the reading itself."""
        if self.absent or (self.finished is None and self.begun is None):
            return []
        fresh = self.fresh()
        found = list(self.samples) if fresh else []
        if self.finished is None:  # the first reading goes on
            if self.hangs():
                found.append(sample("sunpipe_collector_success", 0, collector=self.name))
            return found
        found.append(sample("sunpipe_collector_success", fresh, collector=self.name))
        found.append(sample("sunpipe_collector_seconds", self.seconds, collector=self.name))
        found.append(sample("sunpipe_collector_timestamp_seconds", self.finished,
                            collector=self.name))  # fmt: skip
        return found


class Background:
    """Threads that read; they are daemons, as a dead file system lets nobody go."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self.collectors = list(collectors)
        self._end = threading.Event()

    def start(self, patience: float = 2.0) -> None:
        """Begin; wait a moment, so that the first scrape finds something."""
        threads = [threading.Thread(target=self._loop, args=(one,), daemon=True, name=one.name)
                   for one in self.collectors]  # fmt: skip
        for thread in threads:
            thread.start()
        end = time.monotonic() + patience
        while time.monotonic() < end and any(one.finished is None for one in self.collectors):
            time.sleep(0.01)

    def _loop(self, collector: Collector) -> None:
        while not self._end.is_set():
            collector.once()
            self._end.wait(max(collector.interval - collector.seconds, REST * collector.seconds))

    def stop(self) -> None:
        """Read no more."""
        self._end.set()

    def collect(self) -> list[Sample]:
        """What all parts show now."""
        return [found for one in self.collectors for found in one.collect()]
