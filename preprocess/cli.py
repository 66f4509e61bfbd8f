"""``sunpipe fetch``, ``sunpipe shard``, ``sunpipe verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage


def fetch(
    config: ConfigOption = None,
    set_: SetOption = None,
    source: Annotated[
        str | None, typer.Option(help="sample or jsoc; replaces fetch.source.")
    ] = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Bring FITS segments into the archive (bundled sample or JSOC)."""
    from preprocess.fetch import fetch as work
    from preprocess.fetch import plan

    overrides = [*(set_ or []), *([f'fetch.source="{source}"'] if source else [])]
    run_stage("fetch", work, config=config, overrides=overrides, dry_run=dry_run, as_json=json_,
              sections=("fetch",), plan=plan)  # fmt: skip


def shard(
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """FITS to HDF5 shards in physical units; MPI ranks share the work."""
    from preprocess.shard import plan, shard

    run_stage("shard", shard, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("shard",), plan=plan)  # fmt: skip


def verify(
    dataset: Annotated[
        str | None, typer.Argument(help="Name or folder of a dataset; default: the configured one.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Read a dataset again and list what is wrong with it; exit code 1 when something is."""
    from preprocess.verify import find_dataset
    from preprocess.verify import verify as check

    problems: list[str] = []

    def work(resolved: Config) -> Result:
        folder = find_dataset(dataset or resolved.dataset)
        problems.extend(check(folder))
        return {"dataset": str(folder), "ok": not problems, "problems": problems}

    def plan(resolved: Config) -> Result:
        return {"would_read": str(find_dataset(dataset or resolved.dataset))}

    run_stage("verify", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              plan=plan)  # fmt: skip
    if problems:
        raise typer.Exit(1)
