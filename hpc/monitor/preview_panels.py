"""A panel with its data: curves, a number, bars, a table, or why there is nothing to show."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from hpc.monitor import preview_numbers as numbers
from hpc.monitor.dialects import DIALECTS, metric_names, served_names
from hpc.monitor.expressions import in_rules
from hpc.monitor.names import RECORDED
from hpc.monitor.preview_chart import Window, chart, colour, finite, legend, reached
from hpc.monitor.preview_model import Panel
from hpc.monitor.preview_source import Client, Series
from hpc.monitor.rules import RULES, shipped

GIVERS = {"dcgm": "dcgm-exporter on the nodes", "node": "node_exporter on the nodes"}
Fill = Callable[[str], str]
Marks = Sequence[tuple[float, str, str]]


def giver(name: str, known: set[str]) -> str:
    """Who offers a metric; of a recorded one also from what, unless that is `known`."""
    if name in RECORDED:
        asked = {one for rule, expr in in_rules(shipped(RULES[0])) if rule == name
                 for one in metric_names(expr)}  # fmt: skip
        if asked & known and known & set(RECORDED):
            return f"recording.rules.yml, which had nothing to record: {RECORDED[name].help}"
        if asked & known:
            return "recording.rules.yml, and what the rules read is there: are they loaded?"
        first = min(asked, key=lambda one: (one not in served_names(), one))
        return f"recording.rules.yml, made of what {giver(first, known)[:-1]} tells."
    if name in served_names():
        where = " (where there is Slurm)" * name.startswith("sunpipe_slurm")
        return f"sunpipe monitor serve{where}."
    return next(f"{text}." for dialect, text in GIVERS.items() if name in DIALECTS[dialect])


def why_empty(panel: Panel, known: set[str]) -> str:
    """Whether metrics of an empty panel are absent, or have no series that fits."""
    wanted = dict.fromkeys(name for target in panel.targets
                           for name in sorted(metric_names(target.expr)))  # fmt: skip
    absent = [name for name in wanted if name not in known]
    if absent:
        verb = "was" if len(absent) == 1 else "were"
        said = giver(absent[0], known)
        return f"{', '.join(absent)} {verb} not there in this time; it comes from {said}"
    when = "in this time" if panel.kind == "timeseries" else "at this moment"
    if any(re.search(r"\$[a-z]", target.expr) for target in panel.targets):
        return f"{', '.join(wanted)}: scraped, but no series fits the choice made above {when}."
    return f"{', '.join(wanted)}: scraped, but without such a value {when}."


def drawn(
    panel: Panel, source: Client, window: Window, fill: Fill, known: set[str], marks: Marks
) -> dict[str, Any]:
    """Ask for a panel's data and lay it out for the template."""
    asked = [(target, fill(target.expr)) for target in panel.targets]
    out: dict[str, Any] = {
        "panel": panel, "exprs": [expr for _, expr in asked], "kind": "empty", "why": "",
    }  # fmt: skip
    if panel.kind == "table":
        answers = {target.ref: source.newest(expr, window.end) for target, expr in asked}
        cells = table(panel, answers)
        shown: dict[str, Any] = {"kind": "table", "rows": cells} if cells else {}
    elif panel.kind == "timeseries":
        found = [(legend(target.legend, each.labels, expr), each) for target, expr in asked
                 for each in source.over(expr, window.start, window.end, window.step)]  # fmt: skip
        curves = [(name, points) for name, each in found if (points := finite(each))]
        plot = chart(panel, curves, window, marks) if curves else None
        shown = {"kind": "chart", "chart": plot} if plot else {}
    else:
        found = [(legend(target.legend, each.labels, expr), each) for target, expr in asked
                 for each in source.newest(expr, window.end)]  # fmt: skip
        values = [(name, points[-1][1]) for name, each in found if (points := finite(each))]
        shown = counted(panel, values) if values else {}
    if not shown:
        shown = {"why": why_empty(panel, known)}
    return out | shown


def counted(panel: Panel, values: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """A number (or the name of its series), or bars."""
    if panel.kind == "bargauge":
        top = max(panel.high or 0.0, *(value for _, value in values), 1e-12)
        bars = [{"name": name, "text": numbers.text(value, panel.unit, panel.decimals),
                 "share": f"{100 * max(0.0, value) / top:.1f}",
                 "colour": reached(value, panel.steps)}
                for name, value in sorted(values, key=lambda pair: -pair[1])]  # fmt: skip
        return {"kind": "bars", "bars": bars}
    name, value = values[0]
    if panel.named:
        named = panel.colours.get(name)
        return {"kind": "value", "text": name,
                "colour": colour(named) if named else "var(--ink)"}  # fmt: skip
    return {"kind": "value", "text": numbers.text(value, panel.unit, panel.decimals),
            "colour": reached(value, panel.steps)}  # fmt: skip


def table(panel: Panel, answers: dict[str, list[Series]]) -> list[list[tuple[str, bool]]]:
    """Rows of (text, is a number): the queries' answers joined where shared labels agree."""
    joined: list[tuple[dict[str, str], dict[str, float]]] = []
    for place, (ref, answer) in enumerate(answers.items()):
        field = f"Value #{ref}" if len(answers) > 1 else "Value"
        if place == 0:
            joined = [(labels_of(each), {field: each.samples[-1][1]}) for each in answer]
            continue
        for each in answer:
            mine = labels_of(each)
            fitting = [
                row
                for row in joined
                if all(row[0].get(key, value) == value for key, value in mine.items())
            ]
            for labels, values in fitting:
                labels.update(mine)
                values[field] = each.samples[-1][1]
            if not fitting:
                joined.append((mine, {field: each.samples[-1][1]}))
    if panel.sort:
        title, descending = panel.sort
        field = next(each.field for each in panel.headers if each.title == title)
        joined.sort(key=lambda row: order(row, field), reverse=descending)
    return [[cell(header.field, header.unit, row) for header in panel.headers] for row in joined]


def labels_of(series: Series) -> dict[str, str]:
    """Labels without the metric's name."""
    return {key: value for key, value in series.labels.items() if key != "__name__"}


def order(row: tuple[dict[str, str], dict[str, float]], field: str) -> tuple[float, list[Any]]:
    """Sort key of a row: numbers by value, labels with their numbers counted as numbers."""
    if field in row[1]:
        return (row[1][field] if math.isfinite(row[1][field]) else -math.inf), []
    parts = re.split(r"(\d+)", row[0].get(field, ""))
    return 0.0, [int(part) if part.isdigit() else part for part in parts]


def cell(field: str, unit: str, row: tuple[dict[str, str], dict[str, float]]) -> tuple[str, bool]:
    """Text of a cell, and whether it is a number; empty when the row has none."""
    if field.startswith("Value"):
        return (numbers.text(row[1][field], unit) if field in row[1] else ""), True
    return row[0].get(field, ""), False
