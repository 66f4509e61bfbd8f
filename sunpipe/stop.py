"""Stopping on request (contract C10): a signal sets a flag, loops poll it.

Slurm sends USR2 before the time limit (``--signal=USR2@300`` without ``B:``),
SIGTERM on ``scancel``, and on preemption either, as the site has it
(``PreemptParameters=send_user_signal``); ctrl-C is SIGINT. The handler does
nothing else; saving and ``scontrol requeue`` happen in the loop, once all
ranks agree. Outside such loops `interrupting` makes the signals act like ctrl-C.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sunpipe.dist import discover
from sunpipe.errors import SunpipeError
from sunpipe.paths import data_root
from sunpipe.scontrol import PATIENCE_S, scontrol, show_job

EARLY_S = 60.0  # a start that is stopped sooner has done nothing
_LOADED = time.monotonic()
# Stages that begin at nothing when they are started again.
KEEPS_NOTHING = frozenset({"evaluate", "report", "search", "traverse", "verify"})
SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


def _install(numbers: tuple[signal.Signals, ...], handler: Any) -> dict[int, Any]:
    """Install `handler`, then let signals through that were held back since the start."""
    previous: dict[int, Any] = {number: signal.signal(number, handler) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    return previous


def _restore(previous: dict[int, Any]) -> None:
    for number, handler in previous.items():
        # None: the handler was not installed from Python and cannot be named
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


class StopFlag:
    """Set by a signal, polled by a loop.

    Attributes
    ----------
    reason : str or None
        Name of the first signal received.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.reason is not None

    @property
    def requeue(self) -> bool:
        """Whether the reason is one after which Slurm should start the job again.

        After SIGTERM rank 0 asks Slurm whether that was a preemption.
        """
        if self.reason == "SIGTERM":
            return discover().is_main and preempted()
        return self.reason == "SIGUSR2"

    def __enter__(self) -> StopFlag:
        self._previous = _install(SIGNALS, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._previous)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second ctrl-C does not wait
        if self.reason is None:
            self.reason = signal.Signals(number).name


def slurm_job() -> str | None:
    """Job id in the form ``scontrol requeue`` takes, or None outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID")


def preempted() -> bool:
    """Whether Slurm has told this job to make room for another.

    A job that ends during the grace time of a preemption has ended for good, also
    where the partition says ``PreemptMode=REQUEUE``: it must ask to be requeued. One
    that was cancelled or has met its limit is no longer RUNNING. Where Slurm's commands
    are missing the answer is no, and the question is left to the batch script outside.
    """
    job = slurm_job()
    if job is None:
        return False
    if shutil.which("scontrol") is None:
        if _leave("preempted"):
            print("sunpipe: whether this SIGTERM is a preemption, after which the job starts again,"
                  " is asked outside the container", file=sys.stderr, flush=True)  # fmt: skip
        return False
    shown = show_job(job) or ""
    return " JobState=RUNNING " in shown and bool(re.search(r" PreemptTime=\d", shown))


def _leave(word: str) -> bool:
    """Write a word for the batch script into ``SUNPIPE_REQUEUE_FILE``, if there is one."""
    asked = os.environ.get("SUNPIPE_REQUEUE_FILE")
    if not asked:
        return False
    try:
        os.makedirs(os.path.dirname(asked), exist_ok=True)
        with open(asked, "w", encoding="utf-8") as handle:
            handle.write(word + "\n")
    except OSError as error:
        print(f"sunpipe: the batch script cannot be asked: {error}", file=sys.stderr, flush=True)
        return False
    return True


def requeue() -> bool:
    """Ask Slurm to start this job again; False (with a line why) when it cannot be asked.

    Where Slurm's commands are missing, as in a container, the batch script outside asks: for
    that it names a file in ``SUNPIPE_REQUEUE_FILE``.
    """
    job = slurm_job()
    if job is None:
        return False
    if shutil.which("scontrol") is None:
        if _leave("requeue"):
            return True
        print("sunpipe: scontrol not found, the job is not requeued", file=sys.stderr)
        return False
    done = scontrol(["requeue", job], PATIENCE_S)
    if done is None:
        return False
    # Slurm ends the job's processes once it has agreed, and scontrol is one of them.
    agreed = done.returncode in (0, -signal.SIGTERM, -signal.SIGKILL)
    if not agreed:
        print(f"sunpipe: scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr)
    return agreed


def requeue_if_progress(stage: str, done: int) -> bool:
    """As `requeue`, but a job that is stopped again and again at the same place ends.

    Parameters
    ----------
    stage : str
        A job may run several stages one after the other.
    done : int
        How much of it is kept for the next start: images trained, parts finished; 0 for
        what keeps nothing. At most `most_requeues` restarts in a row without more.
    """
    job = slurm_job()
    if job and _nothing_new(job, stage, done):
        print(f"sunpipe: {stage} was stopped as often as SUNPIPE_MAX_REQUEUES allows without"
              " getting further than before: it needs a longer --time, or nodes that are not taken"
              " away; the job ends here", file=sys.stderr, flush=True)  # fmt: skip
        return False
    return requeue()


def _nothing_new(job: str, stage: str, done: int) -> bool:
    """Whether more than `most_requeues` stops in a row have added nothing."""
    from sunpipe.files import read_json, write_json
    from sunpipe.requeue import most_requeues

    notes = data_root() / "requeues" / f"{job}-stops.json"
    start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    try:
        stored = read_json(notes) if notes.exists() else {}
        if stored.get("stage") != stage or stored["start"] >= start:  # another job of this number
            stored = {}
        count = 0 if done > stored.get("done", 0) else stored.get("count", 0) + 1
        write_json(notes, {"stage": stage, "start": start, "count": count,
                           "done": max(done, stored.get("done", 0))})  # fmt: skip
        return bool(count > most_requeues())
    except (SunpipeError, OSError) as error:
        print(f"sunpipe: restarts are not counted: {error}", file=sys.stderr, flush=True)
        return False


def requeue_or_end(stage: str = "") -> bool:
    """As `requeue`, where nothing tells progress: a job that never gets to its work ends.

    A time limit shorter than Slurm's warning before it has each start stopped at once.
    """
    if stage in KEEPS_NOTHING:
        return requeue_if_progress(stage, 0)
    job = slurm_job()
    if job and time.monotonic() - _LOADED < EARLY_S and _again_and_again(job):
        print(f"sunpipe: Slurm asked the job to stop within {EARLY_S:g} s of its start, at every of"
              " its last starts: its --time is too short for its --signal; the job ends here",
              file=sys.stderr, flush=True)  # fmt: skip
        return False
    return requeue()


def _again_and_again(job: str) -> bool:
    """Whether this start and more than `most_requeues` before it, in a row, were stopped early."""
    from sunpipe.files import read_json, write_json
    from sunpipe.requeue import most_requeues

    notes = data_root() / "requeues" / f"{job}-early.json"
    start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    try:
        stored = read_json(notes) if notes.exists() else {}
        count = stored["count"] + 1 if stored.get("start") == start - 1 else 1
        write_json(notes, {"start": start, "count": count})
        return bool(count > most_requeues())
    except (SunpipeError, OSError) as error:
        print(f"sunpipe: starts are not counted: {error}", file=sys.stderr, flush=True)
        return False


@contextmanager
def interrupting(stage: str = "") -> Iterator[None]:
    """Make SIGTERM and USR2 act like ctrl-C while no `StopFlag` is set up.

    After USR2, or a preemption's SIGTERM, rank 0 first has Slurm requeue the job. The
    other ranks leave USR2 to it: were one to end first, a launcher could kill rank 0
    before it has asked.
    Only the first signal raises, so that cleaning up is not interrupted.
    """
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if seen or (number == signal.SIGUSR2 and not discover().is_main):
            return
        seen.append(number)
        if number == signal.SIGUSR2 or (discover().is_main and preempted()):
            requeue_or_end(stage)
        raise KeyboardInterrupt

    previous = _install((signal.SIGUSR2, signal.SIGTERM), handle)
    try:
        yield
    finally:
        _restore(previous)
