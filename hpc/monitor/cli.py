"""``sunpipe monitor``."""

from __future__ import annotations

import typer

monitor = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Watch runs and the cluster."
)


@monitor.callback()
def _group() -> None:
    """Watch runs and the cluster."""
