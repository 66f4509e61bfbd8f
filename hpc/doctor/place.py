"""Where the doctor stands: on a login node, inside an allocation, or without Slurm."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc.doctor.ask import ask
from hpc.profile import Profile, Resources
from hpc.script import job_environment, python_command, setup_lines
from hpc.slurm_query import NO_CONFIGURATION
from sunpipe.errors import UsageError
from sunpipe.settings import Config

NO_CLUSTER = ("no slurm.conf is found: this machine belongs to no Slurm cluster (SLURM_CONF names"
              " the file of one elsewhere)")  # fmt: skip
FREE_S = 45  # that nodes may take to come free: less than any check of them waits
Where = Literal["login", "allocation", "no slurm"]


@dataclass(frozen=True)
class Place:
    """What every check may look at.

    Attributes
    ----------
    where : str
        ``login``: Slurm's commands are here, and a cluster is configured; ``allocation``:
        inside a job.
    env : mapping
        Environment.
    root : Path
        Data root.
    config : Config
    profile : Profile or None
        Of ``--cluster``; None without.
    nodes : int
        Nodes of the allocation; of the profile's training on a login node.
    tasks_per_node, gpus_per_node : int
        What a training starts on a node.
    srun : tuple of str or None
        Begins the command that starts tasks on the nodes; None: they are not asked.
    """

    where: Where
    env: Mapping[str, str]
    root: Path
    config: Config
    profile: Profile | None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    srun: tuple[str, ...] | None = None


def _number(env: Mapping[str, str], key: str, default: int = 0) -> int:
    word = env.get(key, "")
    return int(word) if word.isascii() and word.isdigit() else default


def options(wanted: Resources) -> list[str]:
    """What sbatch and srun take to ask for a stage's nodes, as `hpc.launch` does."""
    named = {"partition": wanted.partition, "account": wanted.account, "qos": wanted.qos,
             "constraint": wanted.constraint, "mem": wanted.mem,
             "gpus-per-node": str(wanted.gpus_per_node or "")}  # fmt: skip
    return [f"--{key}={value}" for key, value in named.items() if value]


def installed(env: Mapping[str, str]) -> bool:
    """Whether Slurm's commands are on PATH."""
    return shutil.which("sinfo", path=env.get("PATH")) is not None


def configured(env: Mapping[str, str]) -> bool:
    """Whether this machine belongs to a Slurm cluster, up or down: `NoSlurm` is the same test."""
    return NO_CONFIGURATION not in ask(["sinfo", "--version"], 5.0, env).err


def find_place(
    config: Config, profile: Profile | None, root: Path, srun: bool = False,
    env: Mapping[str, str] | None = None,
) -> Place:  # fmt: skip
    """Find out where this is.

    Parameters
    ----------
    srun : bool
        On a login node, ask Slurm for the nodes of a training for some minutes.

    Raises
    ------
    UsageError
        Started as several tasks, or `srun` where there is no Slurm.
    """
    env = os.environ if env is None else env
    if "SLURM_PROCID" in env and _number(env, "SLURM_STEP_NUM_TASKS", 1) > 1:
        raise UsageError("sunpipe doctor starts its ranks itself: run it once in the job, without"
                         " srun or with srun -n1")  # fmt: skip
    where: Where = "no slurm"
    if installed(env):
        where = "allocation" if env.get("SLURM_JOB_ID") else (
            "login" if configured(env) else "no slurm")  # fmt: skip
    if where == "allocation":
        nodes = _number(env, "SLURM_JOB_NUM_NODES", 1)
        gpus = _number(env, "SLURM_GPUS_ON_NODE")
        tasks = gpus or 1
        # The step that this runs in may hold the whole allocation, and a job that asks for four
        # GPUs and no more has one CPU for their ranks.
        begins: tuple[str, ...] = ("srun", "--overlap", "--overcommit")
        return Place(where, env, root, config, profile, nodes, tasks, gpus, begins)
    if srun and where == "no slurm":
        raise UsageError("--srun needs Slurm: its commands are not on PATH" if not installed(env)
                         else f"--srun needs Slurm: {NO_CLUSTER}")  # fmt: skip
    train = profile.stages.train if profile else Resources()
    nodes = train.nodes if profile else (2 if srun else 1)
    begins = (
        "srun",
        "--job-name=sunpipe-doctor",
        "--time=5",
        f"--immediate={FREE_S}",
        *options(train),
    )
    return Place(where, env, root, config, profile, nodes, train.tasks_per_node,
                 train.gpus_per_node, begins if srun else None)  # fmt: skip


def python_on_nodes(place: Place, *words: str) -> list[str]:
    """Python of a stage with these arguments: after the profile's set-up, in its container."""
    profile = place.profile
    if profile is None:
        return [sys.executable, *words]
    wanted = profile.stages.train
    # a stage without ranks and container has no lines but those of modules and setup
    bare = dataclasses.replace(profile, container="")
    lines = setup_lines("report", bare, wanted, place.root, [])
    python = python_command(profile, wanted, place.root)
    return ["bash", "-c", "\n".join([*lines, f'exec {python} "$@"']), "doctor", *words]


def stage_variables(place: Place) -> dict[str, str]:
    """The environment with what a launched stage gets: the network interface above all."""
    more = {}
    if place.profile is not None:
        more = job_environment(place.profile, place.profile.stages.train, place.root)
    return {**place.env, **more}


def on_nodes(place: Place, nodes: int, tasks_per_node: int, *command: str, mpi: str = "none"
             ) -> list[str]:  # fmt: skip
    """The command line that starts `command` as tasks on the nodes."""
    if place.srun is None:
        raise ValueError("the nodes are not to be asked")
    return [*place.srun, f"--nodes={nodes}", f"--ntasks={nodes * tasks_per_node}",
            f"--ntasks-per-node={tasks_per_node}", f"--mpi={mpi}", "--kill-on-bad-exit=1",
            *command]  # fmt: skip
