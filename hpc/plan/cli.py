"""``sunpipe plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.stage import ConfigOption, JsonOption, SetOption


def plan(
    file: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Experiment configuration (TOML).")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Cluster profile (TOML).", envvar="SUNPIPE_CLUSTER"),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="GPU type (h200, a100, ...), a TOML file, or cpu."),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Default: the profile's, else 1.")
    ] = None,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="Default: the profile's, else 1.")
    ] = None,
    brief: Annotated[
        bool, typer.Option("--brief", help="Without the table of alternatives: some seconds.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="End with exit code 1 where it does not fit.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """What a training will take, before it is queued: memory, time, disk, and whether it fits.

    After a run, predicted against actual. For example: sunpipe plan configs/sharp_vector_1024.toml
    --gpu h200 --nodes 2 --gpus-per-node 4
    """
    from hpc.plan.plan import make_plan
    from hpc.plan.target import target
    from hpc.plan.text import lines
    from sunpipe.config import load_config
    from sunpipe.errors import EXIT_FAILURE, UsageError

    if file is not None and config is not None:
        raise UsageError("the configuration is named twice; leave out --config")
    cfg = load_config(file or config, set_ or ())
    found = make_plan(cfg, target(cluster, gpu, nodes, gpus_per_node), brief)
    if json_:
        print(json.dumps(found, allow_nan=False), flush=True)
    else:
        print("\n".join(lines(found)), flush=True)
    if check and not found["fits"]:
        raise typer.Exit(EXIT_FAILURE)
