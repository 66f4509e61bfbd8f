"""``sunpipe monitor dashboards`` and ``sunpipe monitor preview``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from sunpipe.stage import JsonOption, emit


def dashboards(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write into DIR; default: this project's.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say which files differ.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build the three Grafana dashboards from their code, with files that provision them.

    The built ones are part of the project; docs/dashboards.md says how Grafana takes them.
    """
    from hpc.monitor.dashboards.build import COMMITTED, differing, write
    from sunpipe.errors import DataError

    folder = out or COMMITTED
    if not check:
        paths = write(folder)
        emit({"folder": str(folder), "files": [str(path) for path in paths]}, json_)
        return
    different = differing(folder)
    if json_:
        emit({"folder": str(folder), "different": different}, True)
    if different:
        raise DataError(
            f"{', '.join(different)} in {folder}: not as they should be; "
            "sunpipe monitor dashboards writes them"
        )
    if not json_:
        emit({"folder": str(folder), "different": different}, False)


def preview(
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="The Prometheus to ask.", envvar="SUNPIPE_PROMETHEUS")
    ] = "http://127.0.0.1:9090",
    dashboard: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="cluster, training or hardware; repeatable."),
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run folder's name; default: the newest.")] = None,
    job: Annotated[str | None, typer.Option(help="Slurm job of the hardware dashboard.")] = None,
    range_: Annotated[
        str, typer.Option("--range", metavar="TIME", help="How far back: 30m, 6h, 2d.")
    ] = "6h",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("dashboards.html"),
    json_: JsonOption = False,
) -> None:
    """Draw the dashboards as one HTML page, for sites without Grafana."""
    from hpc.monitor import preview as pages

    page = pages.preview(prometheus, out, dashboard or (), run, seconds(range_), job=job)
    emit({"page": str(page.resolve())}, json_)


def seconds(text: str) -> float:
    """A time such as ``90s``, ``30m``, ``6h``, ``2d`` in seconds."""
    from hpc.monitor.rules import UNITS
    from sunpipe.errors import UsageError

    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise UsageError(f"--range {text!r} is no time such as 30m, 6h or 2d")
    return float(found[1]) * UNITS[found[2]]
