"""``sunpipe report``; matplotlib and torch are imported when the work begins."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, run_stage

AgainOption = Annotated[
    bool, typer.Option("--again", help="Make the page again even if nothing changed.")
]


def report(
    config: ConfigOption = None,
    set_: SetOption = None,
    again: AgainOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """One HTML page about the whole experiment, useful after any stage."""

    def work(cfg: Config) -> dict[str, Any]:
        from sunpipe.report.report import report as run

        return run(cfg, config, again=again)

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.report.report import plan as run

        return run(cfg, config)

    run_stage("report", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("report",), plan=plan, locked=True)  # fmt: skip
