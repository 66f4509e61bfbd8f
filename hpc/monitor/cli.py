"""``sunpipe monitor``: the exporter, rules for Prometheus, a quick start."""

from __future__ import annotations

from typing import Annotated

import typer

from hpc.monitor import dash_cli

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
        float, typer.Option(min=0.1, max=3600, help="Seconds between two readings.")
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
