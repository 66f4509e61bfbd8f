"""What is looked at before anything is queued: is it queued already, does it fit."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hpc.decide import waits_for
from hpc.profile import Profile
from hpc.slurm_query import NoSlurm, slurm_jobs
from hpc.stages import STAGES
from hpc.submitted import submissions
from sunpipe.checkpoint import complete
from sunpipe.errors import DataError
from sunpipe.made import made_by
from sunpipe.paths import Layout
from sunpipe.run import ssl_name, trained_run
from sunpipe.settings import Config
from sunpipe.stage import log


def in_queue(folder: Path, name: str) -> dict[str, list[str]]:
    """Stages of an experiment that wait or run on Slurm now, and their jobs.

    Slurm may give a number twice (its numbers start again, or the data root is used
    from two clusters), so the job must be named after the stage, too.

    Parameters
    ----------
    folder : Path
        Where Slurm's logs are; only what ``sunpipe launch`` and ``pipeline`` have
        submitted from this data root is known.
    """
    known = {row["job"]: row["stage"] for row in submissions(folder) if row["name"] == name}
    found: dict[str, list[str]] = {}
    if not known:
        return found
    try:
        jobs = slurm_jobs(ended=False)
    except NoSlurm:
        return found
    for number in dict.fromkeys(job.array for job in jobs if job.stage == known.get(job.array)):
        if number in known:
            found.setdefault(known[number], []).append(number)
    return found


def refuse_second(queued: Mapping[str, Sequence[str]], name: str, stages: Sequence[str]) -> None:
    """Refuse stages that are queued already: two of the same would stand in each other's way.

    Parameters
    ----------
    queued : mapping
        From `in_queue`.

    Raises
    ------
    DataError
        Naming the stages and their jobs.
    """
    if both := [stage for stage in stages if stage in queued]:
        listed = ", ".join(f"{stage} (job {', '.join(queued[stage])})" for stage in both)
        raise DataError(f"{listed} of {name} in the queue already: wait for the end, or scancel;"
                        " --force submits another")  # fmt: skip


def jobs_read(stage: str, queued: Mapping[str, Sequence[str]]) -> list[str]:
    """Jobs in the queue that make what `stage` reads: it starts when they have ended well."""
    return [job for one in waits_for(stage, list(queued)) for job in queued[one]]


def check_root(root: Path) -> None:
    """Refuse a data root that could not be made, before anything is said of what is in it.

    It is not made yet: what is refused afterwards must not leave a mistyped one.

    Raises
    ------
    DataError
        It cannot be made.
    """
    nearest = next(one for one in (root, *root.parents) if os.path.lexists(one))
    if not nearest.is_dir():
        raise _no_root(root, os.strerror(errno.ENOTDIR))
    if nearest != root and not os.access(nearest, os.W_OK | os.X_OK):
        raise _no_root(root, f"{nearest} is not writable")


def make_root(root: Path) -> None:
    """Make the data root, before anything is started or queued that needs it.

    Raises
    ------
    DataError
        It cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_root(root, str(error.strerror)) from None


def _no_root(root: Path, why: str) -> DataError:
    return DataError(f"the data root {root} cannot be made ({why}); choose another"
                     " with SUNPIPE_ROOT")  # fmt: skip


def is_made(stage: str, cfg: Config, layout: Layout) -> bool:
    """Whether there is what the readers of `stage` would read.

    They take the newest run that has a checkpoint: a start that failed behind it is none.
    """
    if stage not in ("train", "ssl"):
        return made_by(stage, cfg, layout)[0].exists()
    folder = trained_run(layout, cfg.name if stage == "train" else ssl_name(cfg.name))
    return folder is not None and bool(complete(folder / "checkpoints"))


def lacking(stage: str, cfg: Config, layout: Layout, coming: Collection[str]) -> list[str]:
    """Stages whose output `stage` needs, that is not there and that is not `coming` either.

    Only the first file of each artefact is looked for: its content is the stage's to judge.
    """
    if stage == "report":  # a report is useful after any stage
        return []
    return [need for need in STAGES[stage].needs
            if need not in coming and not is_made(need, cfg, layout)]  # fmt: skip


def check_inputs(
    stage: str, cfg: Config, layout: Layout, coming: Collection[str], force: bool,
    told: bool = False,
) -> None:  # fmt: skip
    """Refuse a stage whose input nobody has made, nor will; see `lacking`.

    Parameters
    ----------
    force : bool
        It is only told; what is in the queue was not looked at, and is not in `coming`.
    told : bool
        It is only told, since nothing is submitted.

    Raises
    ------
    DataError
        Naming the stages to run first.
    """
    if lacks := lacking(stage, cfg, layout, coming):
        where = ("not there (with --force the queue is not looked at)" if force
                 else "neither there nor in the queue")  # fmt: skip
        line = (f"{stage} reads what {' and '.join(lacks)} makes, which is {where}:"
                f" sunpipe pipeline --from {lacks[0]}")  # fmt: skip
        if not (force or told):
            raise DataError(f"{line}; nothing was queued (--force queues it anyway)")
        log(line)


def check_fit(cfg: Config, profile: Profile, stages: Sequence[str], force: bool) -> None:
    """Ask `hpc.plan` whether the stages fit what the profile grants.

    Raises
    ------
    DataError
        Something cannot work, and `force` is not given.
    """
    from hpc.plan.fit import queue_check

    stages_of: dict[tuple[str, str], list[str]] = {}  # what is said of several is said once
    for each in queue_check(cfg, profile, stages):
        stages_of.setdefault((each.level, each.text), []).append(each.stage)
    refused = []
    for (level, text), named in stages_of.items():
        line = f"{', '.join(named)}: {text}"
        if force or level != "refuse":
            log(line)
        else:
            refused.append(line)
    if refused:
        raise DataError("; ".join(refused) + "; nothing was queued (--force queues it anyway)")
