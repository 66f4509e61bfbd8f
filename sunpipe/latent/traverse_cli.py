"""``sunpipe traverse``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage

if TYPE_CHECKING:
    from sunpipe.latent.ask import Asked


class Way(StrEnum):
    """How the latent moves."""

    AUTO = "auto"
    STRAIGHT = "straight"
    BENT = "bent"


def brief(result: Result) -> Result:
    """What a terminal shows of a walk: the table above it has said what else changed."""
    hidden = ("others", "held", "fits")
    shown = {key: value for key, value in result.items()
             if key not in hidden and value not in (None, "", [], {})}  # fmt: skip
    for name, held in result["held"].items():
        kept = "held" if held["held"] else "not held"
        shown[name] = (f"{kept}: drift {held['drift_std']:+.3f} of its spread,"
                       f" {held['drift']:+.4g} {held['unit']}".rstrip())  # fmt: skip
    return shown


def traverse(
    quantity: Annotated[
        str | None, typer.Option(help="Quantity to change, for example USFLUX.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Change with its unit, for example 1e22Mx."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Value to come to, for example 3e22Mx."),
    ] = None,
    component: Annotated[
        int | None,
        typer.Option(min=1, help="Principal component to walk, --by standard deviations."),
    ] = None,
    hold: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Quantities to keep, by measuring at every stride."),
    ] = None,
    hold_tolerance: Annotated[
        float, typer.Option(help="How far held ones may drift, in natural standard deviations.")
    ] = 0.1,
    against: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Walk the direction with these removed."),
    ] = None,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Walk the direction with all others removed.")
    ] = False,
    path: Annotated[
        Way,
        typer.Option(help="Along the direction, by local responses, or these where it ends."),
    ] = Way.AUTO,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the latent to start from.")] = 0,
    from_: Annotated[
        Path | None,
        typer.Option("--from", dir_okay=False,
                     help="Latent file to start from: walk.h5, or inversion.h5 of a real region."),
    ] = None,
    frames: Annotated[int, typer.Option(min=2, max=64, help="Of the strip and the table.")] = 5,
    fits: Annotated[
        bool, typer.Option("--fits", help="FITS of every frame, not of both ends alone.")
    ] = False,
    movie: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Movie of the walk: .gif or .mp4.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for strip.png and the numbers.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Move a latent until the measured quantity has changed by an amount."""

    def asked() -> Asked:
        from sunpipe.latent.ask import Asked, names

        return Asked(
            quantity, by, seed, conditional, out, against=names(against), hold=names(hold),
            hold_tolerance=hold_tolerance, to=to, start=from_, component=component,
            path=path.value, frames=frames, fits=fits, movie=movie,
        )  # fmt: skip

    def work(cfg: Config) -> Result:
        from sunpipe.latent.by_amount import traverse

        result = traverse(cfg, asked())
        return result if json_ else brief(result)

    def plan(cfg: Config) -> Result:
        from sunpipe.latent.by_amount import plan

        return plan(cfg, asked())

    run_stage(
        "traverse", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("sample", "directions"), plan=plan,
    )  # fmt: skip
