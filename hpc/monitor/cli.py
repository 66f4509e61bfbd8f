"""``sunpipe monitor``: the exporter, rules for Prometheus, dashboards, a quick start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpc.monitor import dash_cli
from sunpipe.stage import JsonOption, emit

monitor = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Watch runs and the cluster."
)


@monitor.callback()
def _group() -> None:
    """Watch runs and the cluster."""


monitor.command()(dash_cli.dashboards)
monitor.command()(dash_cli.preview)


@monitor.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; only this machine unless changed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9808,
    interval: Annotated[
        float, typer.Option(min=0.1, max=300, help="Seconds between two readings.")
    ] = 15.0,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and end.")] = False,
) -> None:
    """Serve metrics of runs, data and Slurm to Prometheus, from the login node.

    No port is opened on compute nodes. Reading goes on in the background: a
    controller that answers late delays no scrape. Anyone who reaches the port can
    read the names of runs and jobs; nothing can be changed through it.
    """
    from hpc.monitor import service
    from sunpipe.errors import DataError
    from sunpipe.paths import Layout
    from sunpipe.stage import log

    watched = service.Monitor(Layout.current(), interval)
    if once:
        found, failed = service.once(watched)
        print(found, end="", flush=True)
        if failed:
            raise DataError(f"could not read {', '.join(failed)}; the rest is above")
        return
    with service.until_told() as told, service.serving(watched, host, port) as server:
        log(f"serving {server.url}/metrics for {watched.layout.root}; SIGTERM or ctrl-C ends it")
        told.wait()
    log("stopped")


ScaleOption = Annotated[
    float,
    typer.Option(min=0.003, max=1000, help="Multiplies the times of all alerts; for drills."),
]


@monitor.command()
def rules(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the three files.")] = Path(
        "prometheus"
    ),
    exporter: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where sunpipe monitor serve answers.")
    ] = "127.0.0.1:9808",
    interval: Annotated[
        float,
        typer.Option(min=1, max=30, help="Seconds between two scrapes; rates need some in 2 min."),
    ] = 15.0,
    scale: ScaleOption = 1.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that were changed.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Write prometheus.yml, recording rules and alerts for a Prometheus of yours."""
    from hpc.monitor.rules import rule_files, write_rules

    paths = write_rules(out, rule_files(exporter, interval, scale), force)
    emit({"folder": str(out.resolve()), "files": [path.name for path in paths]}, json_)


@monitor.command()
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(help="With a prometheus.yml, or dashboards; sunpipe's own by default."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check rules with promtool, and that every metric in rules and dashboards exists."""
    from hpc.monitor.check import check_folder, check_shipped

    lines = check_folder(folder) if folder else check_shipped()
    if json_:
        emit({"ok": True, "checks": lines}, True)
        return
    for line in lines:
        print(line)


@monitor.command()
def demo(
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keeps history and page; a temporary one by default."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the metrics; 0: a free one.")] = 0,
    prometheus_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of Prometheus; 0: a free one.")
    ] = 0,
    scale: ScaleOption = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Draw the page one time and end.")] = False,
    json_: JsonOption = False,
) -> None:
    """Start the exporter and a Prometheus with all rules here, and draw the dashboards.

    Needs Debian's package prometheus. All listens on this machine only; ctrl-C ends both.
    """
    from hpc.monitor import demo as quick
    from sunpipe.paths import Layout

    page = quick.demo(Layout.current(), folder, port, prometheus_port, scale, once)
    if page is not None:
        emit({"page": str(page)}, json_)
