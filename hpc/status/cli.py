"""``sunpipe status``."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from sunpipe.stage import JsonOption


def status(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names, numbers or folders; default: all."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Draw it again and again.")] = False,
    every: Annotated[
        float, typer.Option(min=1.0, max=3600.0, metavar="SECONDS", help="Pause of --watch.")
    ] = 10.0,
    all_: Annotated[bool, typer.Option("--all", help="Older runs too.")] = False,
    json_: JsonOption = False,
) -> None:
    """Runs and jobs at a glance: progress, pace, what is left, why a job waits, what failed."""
    from sunpipe.errors import UsageError

    if watch and json_:
        raise UsageError("--watch and --json do not go together")
    if not watch:
        _once(runs or [], all_, json_)
        return
    try:
        _watch(runs or [], all_, every)
    except KeyboardInterrupt:
        return  # how a watch ends


def _look(wanted: list[str], all_: bool) -> tuple[Any, Any, int, str]:
    from hpc.status.find import SHOWN, read_runs
    from hpc.status.jobs import read_queue
    from sunpipe.paths import Layout

    layout, now = Layout.current(), time.time()
    queue = read_queue(layout.root, now)
    lines = read_runs(layout.runs, wanted, queue.known, now)
    shown = lines if all_ or wanted else lines[:SHOWN]
    return shown, queue, len(lines) - len(shown), str(layout.root)


def _once(wanted: list[str], all_: bool, as_json: bool) -> None:
    import sys

    from hpc.status.table import plain_lines, tables
    from sunpipe.stage import emit

    lines, queue, hidden, root = _look(wanted, all_)
    if as_json:
        emit({"root": root, "slurm": queue.state, "runs": [line.as_json() for line in lines],
              "hidden": hidden, "jobs": [job.as_json() for job in queue.jobs],
              "failed": [one.as_json() for one in queue.failed]}, True)  # fmt: skip
    elif sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        for line in tables(lines, queue, hidden, root, console.width):
            console.print(line, soft_wrap=True)  # a command stays in one piece for copying
    else:
        print("\n".join(plain_lines(lines, queue, hidden, root)))


def _watch(wanted: list[str], all_: bool, every: float) -> None:
    """Draw again every some seconds; in a log, print again."""
    import sys

    from hpc.status.table import fitting, plain_lines, tables
    from sunpipe.provenance import now

    if not sys.stdout.isatty():
        while True:
            lines, queue, hidden, root = _look(wanted, all_)
            print(f"{now()}\n" + "\n".join(plain_lines(lines, queue, hidden, root)) + "\n",
                  flush=True)  # fmt: skip
            time.sleep(every)
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines, queue, hidden, root = _look(wanted, all_)
            foot = Text(f"{now()}, again every {every:g} s; ctrl-C ends it", style="dim")
            shown = tables(lines, queue, hidden, root, console.width)
            shown = fitting(shown, console, console.height - 2)
            live.update(Group(*shown, Text(), foot), refresh=True)
            time.sleep(every)
