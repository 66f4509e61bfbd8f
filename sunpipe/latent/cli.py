"""``sunpipe sample``, ``sunpipe directions fit|show``."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage

directions = typer.Typer(
    help="Linear SVM directions: fit, show.", no_args_is_help=True, add_completion=False
)


PartOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do the I-th of N shares of the work, I from 1."),
]


def sample(
    config: ConfigOption = None,
    set_: SetOption = None,
    part: PartOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Draw latents, generate patches, measure each; continues where it was stopped."""
    from sunpipe.parts import parse_part

    share = parse_part(part) if part is not None else None

    def work(cfg: Config) -> Result:
        from sunpipe.latent.sample import sample

        return sample(cfg, share)

    def plan(cfg: Config) -> Result:
        from sunpipe.latent.sample import plan

        return plan(cfg, share)

    run_stage(
        "sample", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("sample",), plan=plan, locked=part is None, part=part,
    )  # fmt: skip


@directions.command()
def fit(
    config: ConfigOption = None,
    set_: SetOption = None,
    part: PartOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Fit one direction per quantity, judge and walk it, measure what else changes."""
    from sunpipe.parts import parse_part

    share = parse_part(part) if part is not None else None

    def work(cfg: Config) -> Result:
        from sunpipe.latent.assemble import fit
        from sunpipe.latent.show import print_tables

        result = fit(cfg, share)
        if json_ or not result["complete"]:
            return result
        print_tables(result)
        return {"directions": result["directions"], "skipped": result["skipped"]}

    def plan(cfg: Config) -> Result:
        from sunpipe.latent.assemble import plan

        return plan(cfg, share)

    run_stage(
        "directions", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("sample", "directions"), plan=plan, locked=part is None, part=part,
    )  # fmt: skip


@directions.command()
def show(config: ConfigOption = None, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Print the published directions: accuracies, controls, worst leaks."""
    from sunpipe.config import load_config
    from sunpipe.latent.show import print_tables, summary
    from sunpipe.paths import Layout
    from sunpipe.stage import emit

    result = summary(Layout.current().latents(load_config(config, set_ or ()).name))
    if json_:
        emit(result, json_)
    else:
        print_tables(result)
