"""sunpipe's jobs: what waits and why, what runs, what failed and how to run just that again."""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpc.slurm_query import Job, NoSlurm, slurm_jobs, slurm_restarts
from hpc.status.again import Ended, failures, rows_of
from hpc.status.elsewhere import roots_of_jobs
from hpc.status.text import duration, plain, visible
from hpc.status.why import why_idle, why_pending
from sunpipe.errors import DataError

PATIENCE_S = 10.0
# squeue(1), JOB STATE CODES: those in which a job holds no nodes
WAITS = ("pending", "requeued", "requeue_fed", "requeue_hold", "resv_del_hold", "special_exit")


@dataclass(frozen=True)
class JobLine:
    """A job, an array task, or the waiting rest of an array.

    Attributes
    ----------
    id, stage, state : str
    tasks : int
        How many tasks this line stands for.
    nodes : int
    where : str
        Node list; empty while it waits.
    elapsed_s, left_s : float or None
        Since its start; until its time limit.
    restarts : int
        How often Slurm started it again.
    why : str
        Why it waits, or does nothing.
    root : str
        Data root that it was launched from, where that is another one.
    """

    id: str
    stage: str
    state: str
    tasks: int
    nodes: int
    where: str
    elapsed_s: float | None
    left_s: float | None
    restarts: int
    why: str
    root: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Queue:
    """What Slurm tells.

    Attributes
    ----------
    state : str
        ``ok``, ``none`` (no Slurm here), or Slurm's words when it does not answer.
    jobs : list of JobLine
        Of sunpipe, that have not ended.
    failed : list of Ended
        Jobs and array tasks that failed and were not made good since.
    known : dict of str to str, or None
        Why each job of this user that has not ended waits, empty for one that runs; None
        where Slurm does not tell.
    """

    state: str
    jobs: list[JobLine]
    failed: list[Ended]
    known: dict[str, str] | None


def job_line(job: Job, restarts: int, now: float) -> JobLine:
    """One line of a job that has not ended."""
    waits = job.state in WAITS
    elapsed = None if waits or job.started is None else max(now - job.started, 0.0)
    why = why_pending(job, now, restarts) if waits else why_idle(job)
    return JobLine(
        visible(job.id), job.stage or plain(job.name, 40), plain(job.state, 20), job.tasks,
        job.nodes, plain(job.node_list, 60), elapsed, None if waits else job.left, restarts, why,
    )  # fmt: skip


def read_queue(root: Path, now: float | None = None) -> Queue:
    """Ask Slurm for the jobs of this user.

    Parameters
    ----------
    root : Path
        Data root; its ``slurm/`` says what was submitted from it.
    """
    now = time.time() if now is None else now
    try:
        every = slurm_jobs(user_name(), timeout=PATIENCE_S)
    except NoSlurm:
        return Queue("none", [], failures(root, [], now), None)
    except DataError as error:
        return Queue(plain(error, 160), [], failures(root, [], now), None)
    live = [job for job in every if not job.ended]
    ours = [job for job in live if job.stage not in (None, "doctor")]
    try:
        restarts = slurm_restarts(user_name(), timeout=PATIENCE_S) if ours else {}
    except DataError:
        restarts = {}  # the column is a convenience; the jobs themselves were told
    lines = [job_line(job, restarts.get(job.job, 0), now) for job in ours]
    launched = {row["job"] for row in rows_of(root)}
    if any(job.array not in launched for job in ours):
        roots = roots_of_jobs(user_name())
        lines = [line if (other := roots.get(job.job)) is None or job.array in launched
                 else replace(line, root=visible(other))
                 for job, line in zip(ours, lines, strict=True)]  # fmt: skip
    known: dict[str, str] = {}
    for job in live:
        why = why_pending(job, now, restarts.get(job.job, 0)) if job.state in WAITS else (
            why_idle(job))  # fmt: skip
        known |= {job.id: why, job.job: why}
    return Queue("ok", lines, failures(root, every, now), known)


def user_name() -> str:
    """Name of this user as Slurm knows it: the environment may lie."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def time_words(line: JobLine) -> str:
    """``2:05:00, 21:55:00 left``."""
    parts = []
    if line.elapsed_s is not None:
        parts.append(duration(line.elapsed_s))
    if line.left_s is not None:
        parts.append(f"{duration(line.left_s)} left")
    return ", ".join(parts)
