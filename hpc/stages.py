"""The stages of the pipeline and what each needs: the one place that knows the graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sunpipe.errors import UsageError


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    command : tuple of str
        What stands after ``sunpipe``.
    needs : tuple of str
        Stages whose output this one reads.
    parts : bool
        Whether it takes ``--part I/N`` and so runs as a job array.
    ranks : bool
        Whether several tasks of one job share its work.
    mpi : bool
        Whether those tasks talk through MPI.
    parallel : int
        Parts of an array that run at one time unless a profile says otherwise;
        0 is no limit. JSOC asks for few connections, and each part has its own.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    parts: bool = False
    ranks: bool = False
    mpi: bool = False
    parallel: int = 0


# In an order that respects `needs`.
STAGES: dict[str, Stage] = {
    "fetch": Stage(("fetch",), parts=True, parallel=2),
    "shard": Stage(("shard",), ("fetch",), ranks=True, mpi=True),
    "train": Stage(("train",), ("shard",), ranks=True),
    "sample": Stage(("sample",), ("train",), parts=True),
    "directions": Stage(("directions", "fit"), ("sample",), parts=True),
    "ssl": Stage(("ssl",), ("shard",), ranks=True),
    "embed": Stage(("embed",), ("ssl",), parts=True),
    "index": Stage(("index", "build"), ("embed",), parts=True),
    "search": Stage(("search",), ("sample", "index")),
    "report": Stage(("report",), ("directions", "search")),
}


def find_stage(name: str) -> Stage:
    """The stage of that name; a `UsageError` with all names otherwise."""
    if name not in STAGES:
        raise UsageError(f"no stage {name!r}; stages: {', '.join(STAGES)}")
    return STAGES[name]


def select(first: str | None = None, only: Collection[str] = ()) -> list[str]:
    """Stages to run, in order.

    Parameters
    ----------
    first : str, optional
        Run this stage and those behind it in the order of the table.
    only : collection of str
        Run just these.
    """
    for name in (*only, *([first] if first else [])):
        find_stage(name)
    if first and only:
        raise UsageError("--from and --only do not go together")
    names = list(STAGES)
    if first:
        return names[names.index(first) :]
    return [name for name in names if not only or name in only]


def depends_on(name: str, chosen: Collection[str]) -> list[str]:
    """Those of `chosen` that must end before `name` may start.

    A needed stage that was not chosen counts as done already, but what it needs
    itself may be among the chosen ones.
    """
    found: dict[str, None] = {}
    for need in STAGES[name].needs:
        for one in [need] if need in chosen else depends_on(need, chosen):
            found[one] = None
    return list(found)
