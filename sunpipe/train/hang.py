"""A training that stops stepping: who it is, where, and an end instead of an endless wait.

A thread beside the training looks at its clock (`sunpipe.train.progress`). With
several ranks it is that of `sunpipe.train.peers`: each tells rank 0 how long it has
been at what it is doing, and whether inside an exchange. When one outside of all
exchanges takes too long, rank 0 asks all of them for the stacks of their threads,
names those that keep the others waiting, and ends the run so that it can be started
again. Nothing is asked of the training itself but a few clock readings per step.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sunpipe.dist import Ranks
from sunpipe.errors import EXIT_LOST
from sunpipe.files import write_text
from sunpipe.train.late_dump import LateDump, late_text
from sunpipe.train.progress import Progress
from sunpipe.train.rendezvous import names
from sunpipe.train.stacks import Place, in_exchange, look

LOOK_S = 0.5  # between looks at the clock
ANSWER_S = 5.0  # for a rank's thread to tell its stacks
LATE_S = 4.0  # for the stacks of ranks that do not answer to appear
WRITE_S = 10.0  # for the report to be written: the file system may be what hangs
PAUSE_S = 5.0  # of the watching thread itself: the process was stopped, or its interpreter
LEAVE_S = 1.0  # for the other ranks to end before rank 0
FAULT_S = 1.0  # for a fault of the watching itself to be said


def said_within(text: str, seconds: float) -> bool:
    """Print on stderr, and wait so long at most: what holds it, a full pipe say, may hold us.

    Returns
    -------
    bool
        Whether stderr has taken it, or is closed and takes nothing.
    """

    def say() -> None:
        with suppress(OSError, ValueError):  # closed: who reads nothing is told nothing
            print(text, file=sys.stderr, flush=True)

    saying = threading.Thread(target=say, name="saying", daemon=True)
    try:
        saying.start()
    except RuntimeError:  # a limit on processes: there is no thread to wait for
        say()
        return True
    saying.join(seconds)
    return not saying.is_alive()


def complain(known: set[str], error: Exception) -> None:
    """Say a fault of the watching itself, once of a kind; the training and the watch go on."""
    if type(error).__name__ not in known:
        known.add(type(error).__name__)
        said_within(
            f"sunpipe: a fault in the watch for hangs, which goes on: {error!r}"[:400], FAULT_S
        )


@dataclass(frozen=True)
class Beat:
    """What a rank tells of itself: seconds at what it does, how many are allowed, if it waits.

    It `waits` inside an exchange, or while its device has work: that may be an
    exchange too (NCCL). `at` is when it was heard, on the clock of who heard it.
    """

    age: float
    limit: float
    waits: bool
    doing: str
    at: float

    def age_at(self, now: float) -> float:
        """Seconds at it by now, if it has not gone on."""
        return self.age + max(now - self.at, 0.0)


def stuck(beats: Mapping[int, Beat], now: float) -> bool:
    """Whether a rank takes too long; one that waits may do so for others.

    When all wait, their exchanges do not meet or a device is stuck, and the most
    patient decides.
    """
    late = {rank: beat.age_at(now) > beat.limit for rank, beat in beats.items()}
    busy = [rank for rank, beat in beats.items() if not beat.waits]
    return any(late[rank] for rank in busy) if busy else bool(late) and all(late.values())


def culprits(told: Mapping[int, Place | None], late: Collection[int] = ()) -> list[int]:
    """Who keeps the others waiting: one that does not answer, else one outside of all exchanges.

    A rank whose host waits for its GPU may be there for the others' sake (NCCL), so
    it is named only if there is nobody else. Of several, those are meant that are
    `late`; the others do what they may.
    """
    found = {rank: place for rank, place in told.items() if place is not None}
    silent = sorted(told.keys() - found.keys())
    busy = sorted(rank for rank, place in found.items() if not place.exchange)
    own = [rank for rank in busy if not found[rank].device]
    known = [group for group in (silent, own) if group]
    over = ([rank for rank in group if rank in late] for group in known)
    return next(filter(None, over), None) or (known[0] if known else busy)


def verdict(told: Mapping[int, Place | None], beats: Mapping[int, Beat], now: float) -> str:
    """One sentence: who hangs, for how long, where."""
    guilty = culprits(told, [r for r, beat in beats.items() if beat.age_at(now) > beat.limit])
    parts = []
    for rank in guilty or sorted(told):
        place, beat = told[rank], beats.get(rank)
        since = ""
        if beat is not None:
            allowed = f"; {beat.limit:.0f} s are allowed" if math.isfinite(beat.limit) else ""
            since = f" for {beat.age_at(now):.0f} s ({beat.doing}{allowed})"
        who = names([rank]) if len(told) > 1 else "the training"
        if place is None:
            parts.append(f"{who} has not gone on{since} and does not answer (stopped, or inside a"
                         " library)")  # fmt: skip
            continue
        what = "waits in an exchange" if not guilty else "has not gone on"
        at = f", reading {', '.join(place.reading[:3])}" if place.reading else ""
        gpu = ", waiting for its GPU" if place.device else ""
        parts.append(f"{who} {what}{since}: {place.where}{at}{gpu}")
    head = "" if guilty else "all ranks wait in exchanges that do not meet: "
    return head + "; ".join(parts[:4]) + (f"; and {len(parts) - 4} more" if len(parts) > 4 else "")


def report(
    said: str, told: Mapping[int, Place | None], late: Callable[[int], str] = lambda _: ""
) -> str:
    """The file: the sentence, and all stacks, those of the culprits first.

    Parameters
    ----------
    late : callable
        Stacks of a rank that did not answer, from outside of its interpreter.
    """
    first = culprits(told)
    order = [*first, *(rank for rank in sorted(told) if rank not in first)]
    parts = [said, ""]
    for rank in order:
        place = told[rank]
        parts.append(f"===== rank {rank}" + (
            f": no answer\n\n{late(rank)}" if place is None
            else f" after {place.steps} steps: {place.where}\n\n{place.text}"
        ))  # fmt: skip
    return "\n".join(parts) + "\n"


class HangWatch:
    """Looks at the clocks of all ranks; alone, at its own.

    Parameters
    ----------
    folder : Path or None
        Of the run; rank 0 writes ``hang-<time>.txt`` into it.
    fail : callable
        Puts the reason into ``status.json`` (rank 0).
    busy : callable
        Whether the device of this rank has work left; False without one.
    leave : callable
        Ends the process with a code.
    """

    def __init__(
        self, ranks: Ranks, progress: Progress, folder: Path | None, fail: Callable[[str], None],
        busy: Callable[[], bool] = lambda: False, leave: Callable[[int], Any] = os._exit,
    ) -> None:  # fmt: skip
        self.ranks, self.progress, self.folder = ranks, progress, folder
        self.fail, self.busy, self.leave = fail, busy, leave
        self.dump = LateDump(folder, ranks.rank)
        self.dump.feed(time.monotonic(), progress.limit_s())
        # a rank that never tells anything is setting up for as long as that may take
        self.beats = {
            rank: Beat(0.0, progress.limit_s(), False, progress.doing, time.monotonic())
            for rank in range(ranks.world)
        }
        self.told: dict[int, Place | None] = {}
        self.over = threading.Event()  # a hang was found: this process ends in a moment
        self._asked: float | None = None
        self._faults: set[str] = set()

    def beat(self) -> str:
        """What this rank tells."""
        clock = self.progress
        waits = in_exchange() or self._device_waits()
        return json.dumps([clock.age_s(), clock.limit_s(), waits, clock.doing])

    def hear(self, rank: int, words: str) -> None:
        """What another one tells, as rank 0 hears it."""
        age, limit, waits, doing = json.loads(words)
        self.beats[rank] = Beat(age, limit, waits, doing, time.monotonic())

    def answer(self) -> str:
        """The stacks of this rank."""
        return json.dumps(look(self.progress.steps, self._device_waits()).as_json())

    def hear_answer(self, rank: int, words: str) -> None:
        """The stacks of another one."""
        self.told[rank] = Place.from_json(json.loads(words))

    def _device_waits(self) -> bool:
        try:
            return self.busy()
        except RuntimeError:  # of a GPU that failed: it will not end by itself
            return True

    def forgive(self, seconds: float) -> None:
        """Leave out a time in which this process was stopped (``scontrol suspend``)."""
        try:
            self.progress.forgive(seconds)
            self.beats = {rank: replace(beat, at=beat.at + seconds)
                          for rank, beat in self.beats.items()}  # fmt: skip
            self.dump.forget()
        except Exception as error:
            complain(self._faults, error)

    def look(
        self, now: float, ask: Callable[[], None] = lambda: None, left: Collection[int] = (),
        broke: str = "",
    ) -> None:  # fmt: skip
        """Put the late dump off; on rank 0, find who hangs, ask for stacks, and end the run.

        Parameters
        ----------
        ask : callable
            Asks the other ranks for their stacks; the answers come to `hear_answer`.
        left : collection of int
            Ranks that have ended as they should, or whose exchange failed.
        broke : str
            Which exchange failed, once it is clear that no rank was lost: those that
            did not come to it are asked for their stacks however long they may take.
        """
        try:
            self._look(now, ask, left, broke)
        except Exception as error:
            complain(self._faults, error)

    def put_off(self, now: float) -> None:
        """Put the late dump off."""
        try:
            self.dump.feed(now, self.progress.limit_s())
        except Exception as error:
            complain(self._faults, error)

    def _look(self, now: float, ask: Callable[[], None], left: Collection[int], broke: str) -> None:
        self.put_off(now)
        if not self.ranks.is_main:
            return
        self.hear(self.ranks.rank, self.beat())
        beats = {rank: beat for rank, beat in self.beats.items() if rank not in left}
        found = (bool(broke) and bool(beats)) or stuck(beats, now)
        if self._asked is None:
            if found:
                self._asked, self.told = now, {}
                ask()
            return
        waiting = set(beats) - set(self.told) - {self.ranks.rank}
        if waiting and now - self._asked < ANSWER_S:
            return
        self._asked = None
        if not found:
            return  # it went on meanwhile
        mine = look(self.progress.steps, self._device_waits())
        if self.ranks.rank in left:  # it is the one that waited
            mine = replace(mine, exchange=True)
        told = {rank: self.told.get(rank) for rank in beats} | {self.ranks.rank: mine}
        said = verdict(told, beats, now)
        self._conclude(f"{broke}: {said}" if broke else said, told)

    def _conclude(self, said: str, told: Mapping[int, Place | None]) -> None:
        self.over.set()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        folder = self.folder
        file = None if folder is None else folder / f"hang-{stamp}.txt"
        end = time.monotonic() + LATE_S

        def late(rank: int) -> str:
            return late_text(folder, rank, end - time.monotonic()) if folder is not None else ""

        def write() -> None:
            with suppress(OSError):  # the disk may be what hangs; what is known is printed
                if file is not None:
                    write_text(file, report(said, told, late))
                self.fail(said)

        where = f"; stacks: {file}" if file else ""
        line = (f"sunpipe: {said}{where}; run the same command again to continue, with a larger"
                " hang_s if it was only slow")  # fmt: skip
        try:
            writer = threading.Thread(target=write, daemon=True)
            with suppress(RuntimeError):  # no thread to be had: it is printed instead
                writer.start()
            stop = time.monotonic() + WRITE_S
            heard = said_within(line, WRITE_S)
            started = writer.ident is not None
            if started:
                writer.join(max(stop - time.monotonic(), 0.0))
            if started and not writer.is_alive():
                self.dump.close()
            elif heard:
                said_within(report(said, told), WRITE_S)
        finally:
            self.leave(EXIT_LOST)


@contextmanager
def alone(watch: HangWatch) -> Iterator[None]:
    """Watch this process from a thread of its own."""
    done = threading.Event()

    def mind() -> None:
        last = time.monotonic()
        while not done.wait(LOOK_S):
            now = time.monotonic()
            if now - last > PAUSE_S:
                watch.forgive(now - last)
            last = now
            watch.look(now)

    thread = threading.Thread(target=mind, name="hang watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
