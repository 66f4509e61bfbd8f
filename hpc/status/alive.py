"""Whether a run that says it is running does: its job, its lock, its silence."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from hpc.status.text import duration

SILENT_S = 900.0  # longer than a first step that compiles, an evaluation, or a large checkpoint
TICKS = 5.0  # of its own length, that a slow run may be silent
FRESH_S, FRESH_TICKS = 60.0, 2.0  # since a sign that outweighs a queue without the job


def lock_held(path: Path, table: str | None = None) -> bool | None:
    """Whether a process of this machine holds the ``flock`` on `path`; None where it is not told.

    It is read from ``/proc/locks`` (proc_locks(5)): trying the lock would take it for a
    moment, and a training that starts just then would be refused.
    """
    try:
        there = path.stat()
        text = Path("/proc/locks").read_text(encoding="ascii") if table is None else table
    except (OSError, ValueError):
        return None
    place = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}:{there.st_ino}"
    return any(
        re.search(r"\bFLOCK\b", line) and f" {place} " in line and "->" not in line
        for line in text.splitlines()
    )


def fresh(silent_s: float, tick_s: float | None) -> bool:
    """Whether a run gave a sign so lately that it lives, whatever this Slurm knows of its job.

    Parameters
    ----------
    silent_s : float
        Since its files changed.
    tick_s : float or None
        Length of its last tick.
    """
    return silent_s < max(FRESH_S, FRESH_TICKS * (tick_s or 0.0))


def sign_of_life(
    job: str | None, jobs: Collection[str] | None, lock: bool | None, silent_s: float,
    tick_s: float | None,
) -> str:  # fmt: skip
    """Why a run that says it is running counts as lost; empty if it does not.

    Parameters
    ----------
    job : str or None
        Slurm job it was started in.
    jobs : collection of str or None
        Jobs that have not ended; None where Slurm does not tell.
    lock : bool or None
        Whether its lock is held on this machine; None where that is not known.
    silent_s : float
        Since its files changed.
    tick_s : float or None
        Length of its last tick.
    """
    patience = max(SILENT_S, TICKS * (tick_s or 0.0))
    if job is not None and jobs is not None:
        if job not in jobs:
            return f"job {job} is not in the queue any more"
    elif lock is not None:
        return "" if lock else "no process of this machine holds its lock"
    if silent_s > patience:
        return f"silent for {duration(silent_s)}" + (f", though job {job} is there" if job and jobs
                                                     else "")  # fmt: skip
    return ""
