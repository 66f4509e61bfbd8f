"""What is looked at before anything is queued: is it queued already, does it fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpc.profile import Profile
from hpc.slurm_query import slurm_jobs
from hpc.submitted import submissions
from sunpipe.errors import DataError
from sunpipe.settings import Config
from sunpipe.stage import log


def in_queue(folder: Path, name: str) -> dict[str, str]:
    """Stages of an experiment that wait or run on Slurm now, and their jobs.

    Parameters
    ----------
    folder : Path
        Where Slurm's logs are; only what was submitted from this data root is known.
    """
    known = {row["job"]: row["stage"] for row in submissions(folder) if row["name"] == name}
    if not known:
        return {}
    return {known[job.array]: job.array for job in slurm_jobs(ended=False) if job.array in known}


def refuse_second(folder: Path, name: str, stages: Sequence[str]) -> None:
    """Refuse stages that are queued already: two of the same would stand in each other's way.

    Raises
    ------
    DataError
        Naming the stages and their jobs.
    """
    queued = in_queue(folder, name)
    if both := [stage for stage in stages if stage in queued]:
        listed = ", ".join(f"{stage} (job {queued[stage]})" for stage in both)
        raise DataError(f"{listed} of {name} in the queue already: wait for the end, or scancel;"
                        " --force submits another")  # fmt: skip


def check_fit(cfg: Config, profile: Profile, stages: Sequence[str], force: bool) -> None:
    """Ask `hpc.plan` whether the stages fit what the profile grants.

    Raises
    ------
    DataError
        Something cannot work, and `force` is not given.
    """
    from hpc.plan.fit import queue_check

    found = queue_check(cfg, profile, stages)
    refused = [f"{each.stage}: {each.text}" for each in found if each.level == "refuse"]
    for each in found:
        if force or each.level != "refuse":
            log(f"{each.stage}: {each.text}")
    if refused and not force:
        raise DataError("; ".join(refused) + "; nothing was queued (--force queues it anyway)")
