"""A cluster profile: partition, account, resources per stage (TOML, contract C2).

Values end in ``#SBATCH`` lines and in the few set-up lines of a batch script,
so each has a whitelist of characters: no control characters, no white space,
no quotes; what a shell would act on only in ``constraint``, which no shell reads.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from hpc.stages import STAGES
from sunpipe.config import read_toml, validate_as
from sunpipe.errors import UsageError
from sunpipe.setting_types import STRICT, Count, CountOrNone


def _shaped(pattern: str, words: str, empty: bool = True) -> AfterValidator:
    """A check that text has this form, or may be `empty`; `words` are for a person."""

    def check(value: str) -> str:
        if not (empty and not value) and not re.fullmatch(pattern, value):
            raise ValueError(f"must be {words}")
        return value

    return AfterValidator(check)


def _as_text(value: Any) -> Any:
    """A bare number, as Slurm takes it."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _some_time(value: str) -> str:
    if minutes(value) == 0:
        raise ValueError("must be more than nothing: to Slurm 0 is no limit")
    return value


def _with_unit(value: str) -> str:
    """Slurm counts a bare number in megabytes."""
    return f"{value}M" if value.isdigit() else value


_LEGAL = "[A-Za-z0-9][A-Za-z0-9_.,-]{0,127}"
Word = Annotated[str, _shaped(_LEGAL, "letters, digits and _.,-")]
Account = Annotated[
    str, _shaped("[A-Za-z0-9_][A-Za-z0-9_.,@:+-]{0,127}", "letters, digits and _.,@:+-")
]
Features = Annotated[
    str,
    _shaped(r"[A-Za-z0-9_\[(][A-Za-z0-9_.:,&|*()\[\]-]{0,255}",
            'features of nodes such as h200&ib or [rack1|rack2]'),
]  # fmt: skip
Module = Annotated[
    str,
    _shaped("[A-Za-z0-9][A-Za-z0-9_.+/:=,~-]{0,127}", "a module such as python/3.11", empty=False),
]
_FILE = "[A-Za-z0-9_./][A-Za-z0-9_./+@,=-]{0,511}"
Program = Annotated[
    str, _shaped(_FILE, "a path of letters, digits and /_.+@,=- (the home is written out, no ~)")
]
Scratch = Annotated[
    str,
    _shaped(r"/[A-Za-z0-9_./+@-]{0,511}|\$[A-Za-z_][A-Za-z0-9_]{0,63}",
            "an absolute path, or $NAME and nothing more, a variable of the nodes"),
]  # fmt: skip
_TIMES = (
    "[0-9]{1,6}(:[0-5]?[0-9])?|[0-9]{1,4}(:[0-5]?[0-9]){2}|[0-9]{1,3}-[0-9]{1,2}(:[0-5]?[0-9]){0,2}"
)
Time = Annotated[
    str,
    BeforeValidator(_as_text),
    _shaped(_TIMES, "a time such as 24:00:00, 1-12:00:00 or 90 (minutes), as Slurm writes it",
            empty=False),
    AfterValidator(_some_time),
]  # fmt: skip
Memory = Annotated[
    str,
    BeforeValidator(_as_text),
    _shaped("[0-9]{1,9}[KMGT]?", "a size such as 64G (0: all the memory of a node)"),
    AfterValidator(_with_unit),
]


@dataclass(frozen=True, config=STRICT)
class Resources:
    """What one stage asks for; an empty string leaves an option to the site's default.

    `nodes` times `tasks_per_node` ranks share the work of ``shard`` and
    ``train``; `array` is the number of parts of ``fetch``,
    ``directions`` and ``embed``, of which `array_parallel` run at one time
    (0: all; without it two of ``fetch`` and all of the others).
    """

    partition: Word = ""
    account: Account = ""
    qos: Account = ""
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
    """A time as Slurm writes it (`man sbatch`, ``--time``) in minutes, rounded up as it does.

    ``minutes[:seconds]``, ``hours:minutes:seconds`` or ``days-hours[:minutes[:seconds]]``.
    """
    days, dash, clock = time.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not dash:
        parts = [0] * (len(parts) < 3) + parts
    hours, mins, seconds = (*parts, 0, 0)[:3]
    return int(days or 0) * 1440 + hours * 60 + mins + (seconds > 0)


def _with_default(data: dict[str, Any]) -> dict[str, Any]:
    """Put what ``[default]`` says into every stage that does not say otherwise."""
    default, stages = data.get("default", {}), data.get("stages", {})
    ranks_of_all = {
        key for key in ("nodes", "tasks_per_node", "array", "array_parallel") if key in default
    }
    if ranks_of_all:
        raise UsageError(f"default.{', default.'.join(sorted(ranks_of_all))}: say it per stage"
                         " ([stages.NAME]), most stages run as one task")  # fmt: skip
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
