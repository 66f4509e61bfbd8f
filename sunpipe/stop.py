"""Stopping on request (contract C10): a signal sets a flag, loops poll it.

Slurm sends USR2 before the time limit or preemption (``--signal=USR2@300``
without ``B:``), SIGTERM on ``scancel``; ctrl-C is SIGINT. The handler does
nothing else; saving and ``scontrol requeue`` happen in the loop, once all
ranks agree.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from types import FrameType

SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Set by a signal, polled by a loop.

    Attributes
    ----------
    reason : str or None
        Name of the first signal received.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._previous: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self.reason is not None

    @property
    def requeue(self) -> bool:
        """Whether the reason is one after which Slurm should start the job again."""
        return self.reason == "SIGUSR2"

    def __enter__(self) -> StopFlag:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

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


def requeue() -> bool:
    """Ask Slurm to start this job again; False (with a line why) when it cannot be asked."""
    job = slurm_job()
    if job is None:
        return False
    if shutil.which("scontrol") is None:
        print("sunpipe: scontrol not found, the job is not requeued", file=sys.stderr)
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"sunpipe: scontrol requeue {job}: {done.stderr.strip()}", file=sys.stderr)
    return done.returncode == 0
