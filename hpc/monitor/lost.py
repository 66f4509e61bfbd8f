"""The state of a run now: what its ``status.json`` says, unless its job or process is gone."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc.status.alive import fresh, lock_held, sign_of_life

# Of a job that does nothing until Slurm lets it. One whose processes were stopped with SIGSTOP
# hangs: nothing lets it go on by itself, and TrainingStalled is for it.
WAITING = ("pending", "requeued", "suspended")


def lock_path(folder: Path, stage: str) -> Path:
    """The file that a training holds locked, as `sunpipe.lock.running` names it."""
    name = folder.name.partition("-")[2]
    name = name.removesuffix("-ssl") if stage == "ssl" else name
    return folder.parent.parent / "locks" / f"{stage}-{name}.lock"


def state_now(
    folder: Path, stage: str, status: Mapping[str, Any], jobs: Mapping[str, str] | None,
    silent_s: float, tick_s: float | None,
) -> Any:  # fmt: skip
    """State of a run.

    A process that was killed, or whose node was lost, leaves "running" behind. It is
    "lost" when its job has left the queue, or nobody holds its lock on this machine;
    "stopped" when its job waits to be started again, or is suspended. Silence alone is no sign: a
    hung run is still there, and the alert TrainingStalled is for it.

    Parameters
    ----------
    folder : Path
        The run folder.
    stage : str
        ``train`` or ``ssl``.
    status : mapping
        Content of ``status.json``.
    jobs : mapping of str to str, or None
        State of each job that has not ended; None where Slurm does not tell.
    silent_s : float
        Since its files changed.
    tick_s : float or None
        Length of its last tick.
    """
    state = status.get("state")
    if state != "running" or fresh(silent_s, tick_s):  # a job that starts may not be known yet
        return state
    job = str(status["job"]) if status.get("job") else None
    if job is not None and jobs is not None and jobs.get(job) in WAITING:
        return "stopped"
    here = status.get("host") == socket.gethostname()
    held = lock_held(lock_path(folder, stage)) if here else None
    return "lost" if sign_of_life(job, jobs, held, 0.0, tick_s) else "running"
