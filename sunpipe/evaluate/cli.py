"""``sunpipe evaluate``."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.evaluate.retrieval_cli import retrieval
from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage

evaluate = typer.Typer(
    help="Quality of the generator and of the search.", no_args_is_help=True, add_completion=False
)


@evaluate.callback()
def _group() -> None:
    """Quality of the generator and of the search."""


@evaluate.command()
def generator(
    config: ConfigOption = None,
    set_: SetOption = None,
    seeds: Annotated[
        int, typer.Option(help="Sets of images that are generated, for the spread; 3 or more.")
    ] = 3,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Compare features of the trained encoder too.")
    ] = False,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Measure the newest generator: features, spectra, flux and pixel values.

    ``train.metrics.count`` images of each seed are compared with as many real
    ones, and the real ones with each other for scale.
    """

    def work(cfg: Config) -> Result:
        from sunpipe.evaluate.generator import Asked, evaluate
        from sunpipe.evaluate.table import render

        found = evaluate(cfg, Asked(seeds, encoder))
        if json_:
            return found
        print(render(found), flush=True)
        return {key: found[key] for key in ("file", "sheet")}

    def plan(cfg: Config) -> Result:
        from sunpipe.evaluate.generator import Asked, plan

        return plan(cfg, Asked(seeds, encoder))

    run_stage(
        "evaluate", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("train",), plan=plan, locked=True,
    )  # fmt: skip


evaluate.command()(retrieval)
