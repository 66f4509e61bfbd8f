"""``sunpipe fetch``."""

from __future__ import annotations

from typing import Annotated

import typer

from sunpipe.stage import ConfigOption, DryRunOption, JsonOption, SetOption, run_stage


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
