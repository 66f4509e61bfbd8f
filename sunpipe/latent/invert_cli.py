"""``sunpipe invert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sunpipe.settings import Config
from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, Result, SetOption, run_stage


def invert(
    config: ConfigOption = None,
    set_: SetOption = None,
    fits: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(metavar="BR BT BP", help="Three FITS files of a SHARP in CEA coordinates."),
    ] = None,
    record: Annotated[
        str | None, typer.Option(metavar="ID", help="JSOC record-set string in the dataset.")
    ] = None,
    tile: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="Y X", help="First row and column; default: the most flux."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the latent and the picture.")
    ] = None,
    dry_run: DryRunOption = False,
    json_: JsonOption = False,
) -> None:
    """Find the latent that makes an observed patch, with its error in gauss and in keywords."""

    def work(cfg: Config) -> Result:
        from sunpipe.latent.inversion import invert
        from sunpipe.latent.target import Wanted

        return invert(cfg, Wanted(record, fits, tile), out)

    def plan(cfg: Config) -> Result:
        from sunpipe.latent.inversion import plan
        from sunpipe.latent.target import Wanted

        return plan(cfg, Wanted(record, fits, tile), out)

    run_stage(
        "invert", work, config=config, overrides=set_, dry_run=dry_run, as_json=json_,
        sections=("sample", "invert"), plan=plan,
    )  # fmt: skip
