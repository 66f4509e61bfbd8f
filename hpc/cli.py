"""``sunpipe launch``, ``sunpipe pipeline`` and ``sunpipe cluster``."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.stage import JsonOption, emit, log

cluster = typer.Typer(
    add_completion=False, no_args_is_help=True, help="A real Slurm on this one machine."
)

FolderOption = Annotated[
    Path, typer.Option("--folder", help="Where the cluster lives.", show_default=".cluster")
]


@cluster.command()
def up(
    folder: FolderOption = Path(".cluster"),
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Number of node daemons.")] = 4,
    json_: JsonOption = False,
) -> None:
    """Start it; prints the line that makes Slurm commands of this shell use it."""
    from hpc.cluster import Cluster

    started = time.perf_counter()
    one = Cluster(folder)
    fresh = one.up(nodes)
    seconds = round(time.perf_counter() - started, 1)
    log(f"{one.state['nodes']} nodes up in {seconds} s" if fresh else "the cluster is already up")
    if json_:
        emit({"conf": str(one.conf), "nodes": one.state["nodes"], "seconds": seconds}, True)
    else:
        print(f"export SLURM_CONF={shlex.quote(str(one.conf))}")


@cluster.command()
def down(folder: FolderOption = Path(".cluster"), json_: JsonOption = False) -> None:
    """Cancel its jobs, stop exactly what was started, remove the folder."""
    from hpc.cluster import Cluster

    stopped = Cluster(folder).down()
    log("the cluster is stopped" if stopped else f"no cluster in {folder}")
    if json_:
        emit({"stopped": stopped}, True)


@cluster.command()
def info(folder: FolderOption = Path(".cluster"), json_: JsonOption = False) -> None:
    """Which daemons live, how many nodes wait, where the configuration is."""
    from hpc.cluster import Cluster
    from sunpipe.errors import DataError

    one = Cluster(folder)
    if not one.daemons:
        raise DataError(f"no cluster in {folder}; start one: sunpipe cluster up --folder {folder}")
    emit({"conf": str(one.conf), "nodes": one.state["nodes"], "idle": one.idle_nodes(),
          "daemons": one.running()}, json_)  # fmt: skip
