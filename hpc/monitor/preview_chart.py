"""Curves as the paths of a small SVG that stretches with the page; its text is plain HTML.

Coordinates: x from 0 to 1000 over time, y from 0 (top) to 300. Lines keep their width and text
its size however wide the panel is, which one scaled picture would not.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc.monitor import preview_numbers as numbers
from hpc.monitor.preview_model import Panel
from hpc.monitor.preview_source import Series

WIDTH, HEIGHT = 1000.0, 300.0
LEGEND = 12  # entries shown
CYCLE = 8  # colours c0 to c7 of the page
# Names of colours in the dashboards, as variables of the page.
COLOURS = {
    "green": "green", "blue": "blue", "orange": "orange", "red": "red", "yellow": "yellow",
    "purple": "purple", "text": "muted", "dark-orange": "rust", "dark-red": "darkred",
    "#73bf69": "lightgreen", "transparent": "ink",
}  # fmt: skip
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Window:
    """The time shown: unix seconds, and the step of the samples in s."""

    start: float
    end: float
    step: float

    def x(self, moment: float) -> float:
        """Place of a moment, 0 to 1."""
        return (moment - self.start) / (self.end - self.start)


def colour(name: str) -> str:
    """A colour of a dashboard as CSS."""
    return f"var(--{COLOURS[name]})"


def reached(value: float, steps: Sequence[tuple[float, str]]) -> str:
    """The colour of the last threshold that `value` reaches, as CSS."""
    names = [name for limit, name in steps if value >= limit]
    return "var(--ink)" if not names or names[-1] == "text" else colour(names[-1])


def finite(series: Series) -> list[tuple[float, float]]:
    """Samples that are numbers."""
    return [pair for pair in series.samples if math.isfinite(pair[1])]


def bounds(panel: Panel, tops: Sequence[Points]) -> tuple[float, float]:
    """Lowest and highest value of the axis: all samples with a margin, within the panel's limits.

    A threshold a little above the samples is brought into view.
    """
    values = [value for points in tops for _, value in points]
    low, high = min(values), max(values)
    if panel.stacked:
        low = min(low, 0.0)
    if panel.lined:
        limits = [limit for limit, _ in panel.steps if math.isfinite(limit)]
        high = max([high, *(limit for limit in limits if high < limit <= 1.6 * high)])
    floor = low if panel.low is None else panel.low
    margin = 0.06 * (high - floor) or 0.1 * abs(high) or 1.0
    low = floor - margin if panel.low is None else floor
    high += margin
    if panel.high is not None:
        high = max(panel.high, high if max(values) > panel.high else panel.high)
    return low, high if high > low else low + 1.0


def path(points: Points, window: Window, low: float, high: float, stairs: bool = False) -> str:
    """SVG path through `points`; broken where samples are missing, a dot where one stands alone."""
    parts: list[str] = []
    for piece in pieces(points, window):
        y_last = ""
        for place, (moment, value) in enumerate(piece):
            x = f"{WIDTH * window.x(moment):.1f}"
            y = f"{HEIGHT * (1 - (value - low) / (high - low)):.1f}"
            if place == 0:
                parts.append(f"M{x} {y}h0")
            elif stairs and y != y_last:
                parts.append(f"H{x}V{y}")
            else:
                parts.append(f"L{x} {y}")
            y_last = y
    return "".join(parts)


def dots(points: Points, window: Window, low: float, high: float) -> str:
    """SVG path of the samples that stand alone: a line of their width could not be seen."""
    alone = [piece for piece in pieces(points, window) if len(piece) == 1]
    return "".join(path(piece, window, low, high) for piece in alone)


def pieces(points: Points, window: Window) -> list[Points]:
    """`points` cut where samples are missing."""
    cuts = [place for place in range(1, len(points))
            if points[place][0] - points[place - 1][0] > 1.5 * window.step]  # fmt: skip
    return [points[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(points)])]


def area(lower: Points, upper: Points, window: Window, low: float, high: float) -> str:
    """Closed paths between two curves over the same moments, one for each piece of them."""

    def at(pair: tuple[float, float]) -> str:
        y = HEIGHT * (1 - (pair[1] - low) / (high - low))
        return f"{WIDTH * window.x(pair[0]):.1f} {y:.1f}"

    edges = zip(pieces(lower, window), pieces(upper, window), strict=True)
    return "".join("M" + "L".join([*map(at, above), *map(at, reversed(below))]) + "Z"
                   for below, above in edges if len(above) > 1)  # fmt: skip


def stack(curves: Sequence[Points]) -> list[tuple[Points, Points]]:
    """Lower and upper edge of each curve when they stand on each other.

    A curve has edges only where it has samples; the ones above it sink down there, since a
    state that nothing is in has no series either.
    """
    floor: dict[float, float] = {}
    found: list[tuple[Points, Points]] = []
    for points in curves:
        lower = [(moment, floor.get(moment, 0.0)) for moment, _ in points]
        upper = [(moment, floor.get(moment, 0.0) + value) for moment, value in points]
        floor.update(upper)
        found.append((lower, upper))
    return found


def newest(points: Points, window: Window, unit: str) -> str:
    """Text of the sample at the end of the time shown; a dash when there is none any more."""
    moment, value = points[-1]
    return numbers.text(value, unit) if moment > window.end - 0.5 * window.step else numbers.DASH


def chart(
    panel: Panel, curves: Sequence[tuple[str, Points]], window: Window,
    marks: Sequence[tuple[float, str, str]],
) -> dict[str, Any]:  # fmt: skip
    """What the template needs to draw curves, each (name, finite samples).

    `marks` are (moment, colour, title).
    """
    layers = stack([points for _, points in curves]) if panel.stacked else []
    tops: list[Points] = [upper for _, upper in layers] or [points for _, points in curves]
    low, high = bounds(panel, tops)
    drawn = []
    for place, (name, points) in enumerate(curves):
        named = panel.colours.get(name)
        dash = "" if place < CYCLE or named else "6 3" if place < 2 * CYCLE else "2 3"
        drawn.append({
            "name": name, "dash": dash,
            "colour": colour(named) if named else f"var(--c{place % CYCLE})",
            "line": path(tops[place], window, low, high, panel.stairs),
            "dots": dots(tops[place], window, low, high),
            "area": area(*layers[place], window, low, high) if layers else "",
            "last": newest(points, window, panel.unit),
        })  # fmt: skip
    ticks = numbers.ticks(low, high, panel.unit)
    return {
        "curves": drawn, "legend": drawn[:LEGEND], "more": max(0, len(drawn) - LEGEND),
        "y": [(f"{100 * (value - low) / (high - low):.2f}", label)
              for value, label in ticks],
        "room": max(len(label) for _, label in ticks) + 1,
        "x": [(f"{100 * window.x(moment):.2f}", label)
              for moment, label in numbers.moments(window.start, window.end)],
        "limits": [(f"{100 * (limit - low) / (high - low):.2f}", colour(name),
                    numbers.plain(limit, panel.unit))
                   for limit, name in panel.steps
                   if panel.lined and math.isfinite(limit) and low <= limit <= high],
        "marks": [(f"{100 * window.x(moment):.2f}", colour(name), title)
                  for moment, name, title in marks],
        "summary": "; ".join(f"{curve['name']} {curve['last']}" for curve in drawn[:LEGEND]),
    }  # fmt: skip


def legend(pattern: str, labels: Mapping[str, str], expr: str) -> str:
    """Name of a series: ``{{label}}`` of the pattern replaced; all labels when there is none."""
    if pattern == "__auto":
        return ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or expr
    text = pattern
    for key, value in labels.items():
        text = text.replace("{{" + key + "}}", value)
    return re.sub(r"\{\{\w+\}\}", "", text).strip()  # a label with no value is not there
