"""``sunpipe query``, ``sunpipe fetch``."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, run_stage


def query(
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Ask JSOC which records the query section means; they become wanted in the manifest."""
    from preprocess.query import plan
    from preprocess.query import query as work

    run_stage("query", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("query",), plan=plan)  # fmt: skip


def fetch(
    config: ConfigOption = None,
    set_: SetOption = None,
    source: Annotated[
        str | None, typer.Option(help="sample or jsoc; replaces fetch.source.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="I/N", help="Only the I-th of N shares (from 1)."),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Also try what failed for good or was missing."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hash every file that is there already.")
    ] = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Bring FITS segments into the archive (bundled sample or JSOC)."""
    from preprocess.fetch import fetch as work
    from preprocess.fetch import plan
    from sunpipe.parts import parse_part

    if part is not None:
        parse_part(part)
    overrides = [*(set_ or []), *([f'fetch.source="{source}"'] if source else [])]
    run_stage("fetch", lambda cfg: work(cfg, part, retry_failed, check), config=config,
              overrides=overrides, dry_run=dry_run, as_json=json_, sections=("query", "fetch"),
              plan=lambda cfg: plan(cfg, part), part=part)  # fmt: skip
