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
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from sunpipe.dist import discover
from sunpipe.errors import SunpipeError
from sunpipe.paths import data_root

EARLY_S = 60.0  # a start that is stopped sooner has done nothing
_LOADED = time.monotonic()
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
    that was cancelled or has met its limit is no longer RUNNING.
    """
    job = slurm_job()
    if job is None or shutil.which("scontrol") is None:
        return False
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True,
                           text=True, timeout=60, check=False).stdout  # fmt: skip
    return " JobState=RUNNING " in shown and bool(re.search(r" PreemptTime=\d", shown))


def requeue() -> bool:
    """Ask Slurm to start this job again; False (with a line why) when it cannot be asked.

    Where Slurm's commands are missing, as in a container, the batch script outside asks: for
    that it names a file in ``SUNPIPE_REQUEUE_FILE``.
    """
    job = slurm_job()
    if job is None:
        return False
    if shutil.which("scontrol") is None:
        if asked := os.environ.get("SUNPIPE_REQUEUE_FILE"):
            os.makedirs(os.path.dirname(asked), exist_ok=True)
            with open(asked, "w", encoding="utf-8") as handle:
                handle.write(job + "\n")
            return True
        print("sunpipe: scontrol not found, the job is not requeued", file=sys.stderr)
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    # Slurm ends the job's processes once it has agreed, and scontrol is one of them.
    agreed = done.returncode in (0, -signal.SIGTERM, -signal.SIGKILL)
    if not agreed:
        print(f"sunpipe: scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr)
    return agreed


def requeue_or_end() -> bool:
    """As `requeue`, where nothing tells progress: a job that never gets to its work ends.

    A time limit shorter than Slurm's warning before it has each start stopped at once.
    """
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
def interrupting() -> Iterator[None]:
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
            requeue_or_end()
        raise KeyboardInterrupt

    previous = _install((signal.SIGUSR2, signal.SIGTERM), handle)
    try:
        yield
    finally:
        _restore(previous)
