"""``sunpipe embed`` and ``sunpipe search``; torch is imported when the work begins."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage

PartOption = Annotated[
    str | None, typer.Option("--part", metavar="I/N", help="Only the I-th of N shares (from 1).")
]


def embed(
    config: ConfigOption = None,
    set_: SetOption = None,
    part: PartOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Embed the real archive with the newest encoder; array parts in any order."""

    def work(cfg: Config) -> Result:
        from sunpipe.embed.embed import embed

        return embed(cfg, part)

    def plan(cfg: Config) -> Result:
        from sunpipe.embed.embed import plan

        return plan(cfg, part)

    run_stage("embed", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("embed",), plan=plan, locked=part is None, part=part)  # fmt: skip


def search(
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Look generated patches up in the real archive and compare their physics."""

    def work(cfg: Config) -> Result:
        from sunpipe.embed.interrogate import interrogate

        return interrogate(cfg)

    def plan(cfg: Config) -> Result:
        from sunpipe.embed.interrogate import plan

        return plan(cfg)

    run_stage("search", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("sample", "search"), plan=plan, locked=True)  # fmt: skip
