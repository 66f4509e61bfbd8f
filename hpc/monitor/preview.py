"""``sunpipe monitor preview``: the dashboards as one HTML page, for sites without Grafana."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc.monitor.dashboards.build import NAMES
from hpc.monitor.preview_chart import Window
from hpc.monitor.preview_model import Board, Choice, load
from hpc.monitor.preview_numbers import duration
from hpc.monitor.preview_panels import drawn
from hpc.monitor.preview_source import Client
from sunpipe.errors import UsageError
from sunpipe.files import write_text

POINTS = 320  # samples of a curve
MARK_STEP_S = 30.0  # the least for marks, as the dashboards say
LONGEST_S = 14 * 86400.0  # Prometheus answers at most 11 000 samples of a series
SCRAPE_S = 15.0
NONE = "none seen"  # no series has this value either
ADVICE = "start it (make monitor), or give its address with --prometheus"


def preview(
    url: str, out: Path, dashboards: Sequence[str] = (), run: str | None = None,
    seconds: float = 6 * 3600.0, *, job: str | None = None, now: float | None = None,
) -> Path:  # fmt: skip
    """Draw dashboards from what a Prometheus knows into one self-contained page.

    Parameters
    ----------
    url : str
        Address of the Prometheus.
    out : Path
        The page; written at once, or not at all.
    dashboards : sequence of str
        Of `cluster`, `training`, `hardware`; none means all.
    run, job : str, optional
        Run folder and Slurm job to show; by default a running one, else the newest.
    seconds : float
        How far the page looks back.
    now : float, optional
        End of the time shown, in unix seconds.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    SunpipeError
        If the Prometheus does not answer; nothing is written then.
    UsageError
        For a dashboard, run, job or time that there is not, or a run or job that no chosen
        dashboard shows.
    """
    if not 60 <= seconds <= LONGEST_S:
        raise UsageError("--range must be from 1m to 14d")
    boards = load(tuple(dict.fromkeys(dashboards)) or NAMES)
    end = time.time() if now is None else now
    step = max(1.0, round(seconds / POINTS))
    window = Window(end - step * math.ceil(seconds / step), end, step)  # so that `end` is a sample
    asked = {"run": run, "slurm_job": job}
    refuse_idle(boards, asked)
    with Client(url, ADVICE) as source:
        known = source.names(window.start, window.end)
        pages = [page(board, source, window, asked, known) for board in boards]
        shown = source.shown
    write_text(out, render(pages, window, shown))
    return out


def refuse_idle(boards: Sequence[Board], asked: Mapping[str, str | None]) -> None:
    """Refuse a run or job that none of the dashboards would take into account."""
    has = {choice.name for board in boards for choice in board.choices}
    names = " and ".join(board.name for board in boards)
    if asked["slurm_job"] is not None and "slurm_job" not in has:
        raise UsageError(f"--job chooses what the dashboard hardware shows, not {names}")
    if asked["run"] is not None and not has & {"run", "slurm_job"}:
        raise UsageError(f"--run chooses what training and hardware show, not {names}")


def page(
    board: Board, source: Client, window: Window, asked: Mapping[str, str | None],
    known: set[str],
) -> dict[str, Any]:  # fmt: skip
    """One dashboard with the values of its variables and the data of its panels."""
    values: dict[str, str] = {}
    shown: list[tuple[str, str]] = []
    for choice in board.choices:
        value, text = chosen(choice, source, window, values, asked)
        values[choice.name] = value
        shown.append((choice.title, text))

    def fill(expr: str) -> str:
        return substituted(expr, values, window)

    fine = Window(window.start, window.end, mark_step(window))
    marks = [(moment, marker.colour, marker.title) for marker in board.markers
             for moment in moments(source, substituted(marker.expr, values, fine, MARK_STEP_S),
                                   fine)]  # fmt: skip
    groups = [(group.title, [drawn(panel, source, window, fill, known, marks)
                             for panel in group.panels]) for group in board.groups]  # fmt: skip
    counts = [(marker.title, marker.colour, sum(title == marker.title for *_, title in marks))
              for marker in board.markers]  # fmt: skip
    return {"board": board, "choices": shown, "groups": groups, "marks": counts}


def chosen(
    choice: Choice, source: Client, window: Window, values: Mapping[str, str],
    asked: Mapping[str, str | None],
) -> tuple[str, str]:  # fmt: skip
    """Value of a variable as it stands in an expression, and as a reader sees it.

    Raises
    ------
    UsageError
        If Prometheus has not seen the value that is asked for.
    """
    metric = substituted(choice.metric, values, window)
    options = source.label_values(metric, choice.label, window.start, window.end)
    options.sort(key=natural, reverse=choice.descending)
    wanted = asked.get(choice.name)
    if wanted is not None:
        refuse_unknown(choice.title, wanted, options)
        return quoted(wanted), wanted
    if choice.name == "slurm_job" and (run := asked.get("run")) is not None:
        jobs = jobs_of(run, source, window)
        found = next((option for option in options if option in jobs), NONE)
        return quoted(found), found
    if not options:
        return choice.all_value or NONE, NONE
    if choice.several:
        every = "|".join(quoted(re.escape(option)) for option in options)
        return choice.all_value or every, ", ".join(options)
    first = preferred(choice, source, window)
    options.sort(key=lambda option: option not in first)  # stable: the newest stays first
    return quoted(options[0]), options[0]


def refuse_unknown(title: str, wanted: str, options: Sequence[str]) -> None:
    """Refuse a value that Prometheus has not seen."""
    if wanted not in options:
        near = ", ".join(options[:5]) or "none"
        raise UsageError(f"Prometheus knows no {title.lower()} {wanted!r}; it has seen: {near}")


def jobs_of(run: str, source: Client, window: Window) -> set[str]:
    """Slurm jobs that a run had in the time shown; none if it was not in one then."""
    between = (window.start, window.end)
    options = source.label_values("sunpipe_train_info", "run", *between)
    refuse_unknown("run", run, sorted(options, key=natural, reverse=True))
    series = f'sunpipe_train_info{{run="{quoted(run)}"}}'
    return set(source.label_values(series, "slurm_job", *between))


def preferred(choice: Choice, source: Client, window: Window) -> set[str]:
    """Values to show rather than the newest: those of runs that run."""
    running = 'sunpipe_train_state{state="running"} == 1'
    expr = {
        "run": running, "slurm_job": f"sunpipe_train_info and on (run) ({running})",
    }.get(choice.name)  # fmt: skip
    found = source.newest(expr, window.end) if expr else []
    return {each.labels.get(choice.label, "") for each in found}


def natural(text: str) -> list[Any]:
    """Sort key in which 10 comes after 9."""
    parts = re.split(r"(\d+)", text)
    return [int(part) if part.isdigit() else part for part in parts]


def quoted(text: str) -> str:
    """A value as it stands between double quotes in PromQL."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def substituted(
    expr: str, values: Mapping[str, str], window: Window, scrape_s: float = SCRAPE_S
) -> str:
    """An expression with Grafana's variables replaced."""
    rate = max(4 * scrape_s, window.step + scrape_s)  # as Grafana defines $__rate_interval
    built_in = {"__rate_interval": f"{rate:.0f}s", "__interval": f"{window.step:.0f}s",
                "__range": f"{window.end - window.start:.0f}s"}  # fmt: skip
    known = {**built_in, **values}
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: known[found[1] or found[2]], expr)


def mark_step(window: Window) -> float:
    """Seconds between the samples of marks."""
    step = max(MARK_STEP_S, (window.end - window.start) / 10_900)
    return min(step, max(1.0, (window.end - window.start) / 240))


def moments(source: Client, expr: str, window: Window) -> list[float]:
    """First moment of each stretch of time in which `expr` has a value."""
    times = sorted({moment for series in source.over(expr, window.start, window.end, window.step)
                    for moment, _ in series.samples})  # fmt: skip
    return [moment for place, moment in enumerate(times)
            if place == 0 or moment - times[place - 1] > 1.5 * window.step]  # fmt: skip


def render(pages: Sequence[Mapping[str, Any]], window: Window, source: str) -> str:
    """The page. Every string is escaped by the template engine."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hpc", "monitor"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("preview.html").render(
        pages=pages,
        source=source,
        back=duration(window.end - window.start),
        made=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(window.end)),
    )
