"""``sunpipe shard``, ``sunpipe verify``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage


def shard(
    config: ConfigOption = None,
    set_: SetOption = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Make it anew even where it could be extended.")
    ] = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """FITS to HDF5 shards in physical units; MPI ranks share the work.

    New records append new shards; changed settings make the dataset anew.
    """
    from preprocess.shard import plan, shard

    run_stage("shard", partial(shard, fresh=fresh), config=config, overrides=set_,
              dry_run=dry_run, as_json=json_, sections=("shard",),
              plan=partial(plan, fresh=fresh))  # fmt: skip


def verify(
    dataset: Annotated[
        str | None, typer.Argument(help="Name or folder of a dataset; default: the configured one.")
    ] = None,
    against_archive: Annotated[
        bool,
        typer.Option("--against-archive", help="Compare with the archive, and make records again."),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=1, help="How many records --against-archive makes again.")
    ] = 64,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Read a dataset again and list what is wrong with it; exit code 1 when something is."""
    from preprocess.verify import find_dataset
    from preprocess.verify import verify as check
    from sunpipe.paths import Layout

    problems: list[str] = []

    def work(resolved: Config) -> Result:
        folder = find_dataset(dataset or resolved.dataset)
        archive = Layout.current().archive if against_archive else None
        problems.extend(check(folder, archive, samples))
        return {"dataset": str(folder), "ok": not problems, "problems": problems}

    def plan(resolved: Config) -> Result:
        return {"would_read": str(find_dataset(dataset or resolved.dataset))}

    run_stage("verify", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              plan=plan)  # fmt: skip
    if problems:
        raise typer.Exit(1)
