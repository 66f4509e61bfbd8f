"""A cluster profile: partition, account, resources per stage (TOML, contract C2).

Values end in ``#SBATCH`` lines and in the few set-up lines of a batch script,
so each has a whitelist of characters: no control characters, no white space,
no quotes, nothing a shell would act on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from hpc.stages import STAGES
from sunpipe.config import read_toml, validate_as
from sunpipe.errors import UsageError
from sunpipe.setting_types import STRICT, Count, CountOrNone

Word = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.,-]{0,127})?$")]
_FEATURE = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
Features = Annotated[str, Field(pattern=rf"^({_FEATURE}([&|]{_FEATURE}){{0,7}})?$")]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+/-]{0,127}$")]
Program = Annotated[str, Field(pattern=r"^([A-Za-z0-9_./][A-Za-z0-9_./+@-]{0,511})?$")]
Scratch = Annotated[
    str, Field(pattern=r"^(/[A-Za-z0-9_./+@-]{0,511}|\$[A-Za-z_][A-Za-z0-9_]{0,63})?$")
]
Time = Annotated[str, Field(pattern=r"^([0-9]{1,3}-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]$")]
Memory = Annotated[str, Field(pattern=r"^([0-9]{1,7}[KMGT])?$")]


@dataclass(frozen=True, config=STRICT)
class Resources:
    """What one stage asks for; an empty string leaves an option to the site's default.

    `nodes` times `tasks_per_node` ranks share the work of ``shard`` and
    ``train``; `array` is the number of parts of ``fetch``,
    ``directions`` and ``embed``, of which `array_parallel` run at one time
    (0: all; without it two of ``fetch`` and all of the others).
    """

    partition: Word = ""
    account: Word = ""
    qos: Word = ""
    constraint: Features = ""
    time: Time = "01:00:00"
    nodes: Count = 1
    tasks_per_node: Count = 1
    cpus_per_task: Count = 1
    gpus_per_node: CountOrNone = 0
    mem: Memory = ""
    array: Annotated[int, Field(ge=1, le=1000)] = 1
    array_parallel: Annotated[int, Field(ge=0, le=1000)] | None = None


@dataclass(frozen=True, config=STRICT)
class StageResources:
    """``[stages.NAME]``: each stage's resources."""

    fetch: Resources = Resources()
    shard: Resources = Resources()
    train: Resources = Resources()
    sample: Resources = Resources()
    directions: Resources = Resources()
    ssl: Resources = Resources()
    embed: Resources = Resources()
    index: Resources = Resources()
    search: Resources = Resources()
    report: Resources = Resources()

    def __post_init__(self) -> None:
        for name, stage in STAGES.items():
            wanted: Resources = getattr(self, name)
            if wanted.nodes * wanted.tasks_per_node > 1 and not stage.ranks:
                raise ValueError(f"{name} runs as one task; set its nodes and tasks_per_node to 1")
            if wanted.array > 1 and not stage.parts:
                raise ValueError(f"{name} has no parts; set its array to 1")
            if wanted.array_parallel is not None and not stage.parts:
                raise ValueError(f"{name} has no parts; leave its array_parallel out")


@dataclass(frozen=True, config=STRICT)
class Profile:
    """One cluster.

    Attributes
    ----------
    python : str
        Python on the compute nodes; empty: the one that submits.
    modules : tuple of str
        Loaded with ``module load`` before the stage starts.
    setup : str
        A shell file to source before the stage starts.
    container : str
        An Apptainer image; `python` is then the one inside it.
    interface : str
        Network interface for NCCL and Gloo, for example ``ib0``.
    gpu : str
        Type of the GPUs, as ``sunpipe plan`` names it, for example ``h200``.
    scratch : str
        A folder on the disks of the nodes, for copies of shards, or ``$NAME`` of a variable
        that holds one there; empty: none.
    mpi : str
        ``srun --mpi`` type of the stages that use MPI.
    signal_s : int
        Seconds before the time limit at which a stage is asked to save and requeue.
    default : Resources
        What the stages start from.
    """

    python: Program = ""
    modules: tuple[Module, ...] = ()
    setup: Program = ""
    container: Program = ""
    interface: Word = ""
    gpu: Word = ""
    scratch: Scratch = ""
    mpi: Word = "pmi2"
    signal_s: Annotated[int, Field(ge=30, le=3600)] = 300
    default: Resources = Resources()
    stages: StageResources = StageResources()


def minutes(time: str) -> int:
    """``[days-]hours:minutes:seconds`` in minutes, rounded up as Slurm does."""
    days, _, clock = time.rpartition("-")
    hours, mins, seconds = map(int, clock.split(":"))
    return int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)


def _with_default(data: dict[str, Any]) -> dict[str, Any]:
    """Put what ``[default]`` says into every stage that does not say otherwise."""
    default, stages = data.get("default", {}), data.get("stages", {})
    ranks_of_all = {
        key for key in ("nodes", "tasks_per_node", "array", "array_parallel") if key in default
    }
    if ranks_of_all:
        raise UsageError(f"default.{', default.'.join(sorted(ranks_of_all))}: say it per stage,"
                         " most stages run as one task")  # fmt: skip
    filled = {name: {**default, **stages.get(name, {})} for name in STAGES}
    return {**data, "stages": filled}


def load_profile(path: Path | None) -> Profile:
    """Read a profile.

    Parameters
    ----------
    path : Path or None
        TOML file; None means ``$SUNPIPE_CLUSTER``.

    Raises
    ------
    UsageError
        No file was named.
    ConfigError
        The file is missing or a value is refused; every fault is named.
    """
    if path is None:
        if not (named := os.environ.get("SUNPIPE_CLUSTER")):
            raise UsageError(
                "which cluster? give --cluster FILE, set SUNPIPE_CLUSTER, or use --local;"
                " configs/clusters/example.toml shows what a profile holds"
            )
        path = Path(named).expanduser()
    data = read_toml(path)
    validate_as(Profile, data, str(path))  # faults as written, before they spread over stages
    return validate_as(Profile, _with_default(data), str(path))
