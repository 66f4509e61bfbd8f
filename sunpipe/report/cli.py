"""``sunpipe report``; matplotlib and torch are imported when the work begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sunpipe.errors import UsageError
from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, run_stage

AgainOption = Annotated[
    bool, typer.Option("--again", help="Make the page again even if nothing changed.")
]
RunsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="Runs by folder, name, number or experiment; several"
                                            " are compared. None: the experiment of --config."),
]  # fmt: skip
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write the page to this file as well.")
]


def report(
    runs: RunsArgument = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    out: OutOption = None,
    again: AgainOption = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """One HTML page about an experiment, a run, or several runs compared."""
    from sunpipe.report.runs import check_out, copy_to

    check_out(out)

    def written(found: dict[str, Any]) -> dict[str, Any]:
        if out is None:
            return found
        copy_to(Path(found["report"]), out)
        return {**found, "out": str(out.absolute())}

    if runs:
        _of_runs(runs, config is not None or bool(set_), written, again, dry_run, json_)
        return

    def work(cfg: Config) -> dict[str, Any]:
        from sunpipe.report.report import report as run

        return written(run(cfg, config, again=again, sets=set_ or ()))

    def plan(cfg: Config) -> dict[str, Any]:
        from sunpipe.report.report import plan as run

        return run(cfg, config, set_ or ())

    run_stage("report", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
              sections=("report",), plan=plan, locked=True)  # fmt: skip


def _of_runs(
    asked: list[str], configured: bool, written: Any, again: bool, dry_run: bool, as_json: bool
) -> None:
    """The page of one run, or of several compared."""
    if configured:
        raise UsageError("give runs, or a configuration (-c, --set), not both: a run brings its"
                         " own configuration")  # fmt: skip
    from sunpipe.paths import Layout
    from sunpipe.report.folders import base_name, config_of, resolve
    from sunpipe.report.runs import plan_runs, report_runs

    found = resolve(Layout.current(), asked)
    for each in found:
        config_of(each)  # refused here, before anything is printed
    name = base_name(found[0]) if len(found) == 1 else "compare"
    run_stage("report-run", lambda _: written(report_runs(found, again)), config=None,
              overrides=[f"name={json.dumps(name)}"], dry_run=dry_run, as_json=as_json,
              plan=lambda _: plan_runs(found), locked=True,
              shown={"runs": [each.name for each in found]})  # fmt: skip
