"""Slurm: reachable, and willing to take what the profile asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from hpc.doctor.ask import ask
from hpc.doctor.finding import Finding, Level
from hpc.doctor.place import NO_CLUSTER, Place, installed, options
from hpc.profile import Profile, Resources, minutes
from hpc.slurm_query import Node, slurm_nodes
from hpc.stages import STAGES
from hpc.status.text import plain
from sunpipe.errors import DataError

USABLE = ("idle", "mixed", "allocated", "completing", "draining")


def reachable(place: Place) -> Finding:
    """The controller answers."""
    if place.where == "no slurm":
        level: Level = "MISS" if place.profile else "WARN"
        return Finding("slurm", level, NO_CLUSTER if installed(place.env) else
                       "Slurm's commands are not on PATH",
                       "load the site's Slurm module, or use --local; a Slurm of this machine:"
                       " sunpipe cluster up")  # fmt: skip
    try:
        nodes = slurm_nodes(10.0)
    except DataError as error:
        return Finding("slurm", "MISS", plain(error), "scontrol ping; is SLURM_CONF right, and is"
                       " the controller up?")  # fmt: skip
    version = plain(ask(["sinfo", "--version"], 10.0).out, 40)
    return judge_nodes(nodes, version)


def judge_nodes(nodes: Sequence[Node], version: str) -> Finding:
    """How many nodes wait, work, or are out of use."""
    idle = sum(node.state == "idle" for node in nodes)
    out = [node for node in nodes if node.state in ("down", "drained", "draining")]
    seen = f"{version}; {len(nodes)} nodes, {idle} idle"
    if out:
        seen += f", {len(out)} down or drained"
    if not any(node.state in USABLE for node in nodes):
        why = plain(out[0].reason, 80) if out and out[0].reason else "no reason given"
        return Finding("slurm", "MISS", f"{seen}: none can take a job ({why})",
                       "ask the cluster's administrators")  # fmt: skip
    return Finding("slurm", "OK", seen)


def distinct(profile: Profile) -> dict[Resources, list[str]]:
    """Stages by what they ask for, each different demand once.

    The number of tasks of an array is no matter for a single task.
    """
    from dataclasses import replace

    found: dict[Resources, list[str]] = {}
    for stage in STAGES:
        wanted = replace(getattr(profile.stages, stage), array=1, array_parallel=None)
        found.setdefault(wanted, []).append(stage)
    return found


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a job tells sbatch about itself."""
    return {key: value for key, value in env.items()
            if not key.startswith(("SLURM_", "SRUN_")) or key in ("SLURM_CONF", "SLURM_CLUSTERS")
            }  # fmt: skip


def accepted(place: Place) -> list[Finding]:
    """Whether Slurm would take each stage: ``sbatch --test-only`` submits nothing.

    It tells a partition, account or QOS that does not exist, nodes that cannot be, and
    limits that are too low, in Slurm's own words.
    """
    if place.profile is None or place.where == "no slurm":
        return []
    good, bad, starts = [], [], []
    for wanted, stages in distinct(place.profile).items():
        argv = ["sbatch", "--test-only", "--wrap=true", f"--nodes={wanted.nodes}",
                f"--ntasks-per-node={wanted.tasks_per_node}", f"--time={minutes(wanted.time)}",
                f"--cpus-per-task={wanted.cpus_per_task}", *options(wanted)]  # fmt: skip
        answer = ask(argv, 15.0, clean(os.environ))
        names = ", ".join(stages)
        if answer.code != 0:
            bad.append(Finding("slurm takes", "MISS", f"not {names}: {why_not(answer.err)}",
                               f"change [stages.{stages[0]}] or [default] in the profile; see what"
                               " there is: sinfo, sacctmgr show assoc user=$USER"))  # fmt: skip
        else:
            good += stages
            starts.append(answer.words)
    if late := limits(place.profile):
        bad.append(late)
    if good:
        words = next((line for line in starts if " to start at " in line), starts[0])
        last = plain(words.removeprefix("sbatch: "), 120)
        bad.insert(0, Finding("slurm takes", "OK", f"{', '.join(good)} ({last})"))
    return bad


def why_not(err: str) -> str:
    """Slurm's reason, of which sbatch prints several lines."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in err.splitlines()]
    return plain("; ".join(line for line in lines if line.strip()) or "without a word", 200)


def limits(profile: Profile) -> Finding | None:
    """Stages whose time limit leaves less for work than for saving."""
    short = [
        stage
        for stage in STAGES
        if minutes(getattr(profile.stages, stage).time) * 60 < 2 * profile.signal_s
    ]
    if not short:
        return None
    return Finding("time limits", "WARN", f"{', '.join(short)}: the time limit is less than twice"
                   f" signal_s ({profile.signal_s} s), after which they stop to save",
                   "raise time, or lower signal_s in the profile")  # fmt: skip
