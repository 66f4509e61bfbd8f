"""Several lines with their own x on one chart: a curve of one run, or those of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.report.charts import GREY, RUNS, drawn, thin
from sunpipe.report.covered import NEAR, height, joined, overlaps, stripes

Floats = NDArray[np.float64]
SIZE, LARGE = (3.5, 2.5), (4.7, 3.0)
START = 0.05  # of a training
WIDE = 30.0  # largest over smallest value from which an axis is logarithmic


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes
    ----------
    x, y : ndarray (N,)
        What is not finite is a gap.
    colour : str
        One of `sunpipe.report.charts`.
    dashed : bool
    error : ndarray (N,), optional
        Half length of an error bar at each point.
    marked : bool
        Whether the points themselves are shown.
    """

    x: Floats
    y: Floats
    colour: str
    dashed: bool = False
    error: Floats | None = None
    marked: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart as the templates show it; the note stands below it."""

    title: str
    svg: str
    note: str = ""


def colour(place: int) -> tuple[str, bool]:
    """Colour of run number `place`, and whether its line is dashed."""
    return RUNS[place], place >= 3


def drawable(lines: Sequence[Line]) -> bool:
    """Whether any line has a point."""
    return any(np.isfinite(line.y).any() for line in lines)


def logarithmic(lines: Sequence[Line], levels: Sequence[float] = ()) -> bool:
    """Whether all values are positive and span more than `WIDE`."""
    values = np.concatenate([*(line.y for line in lines), np.asarray(levels, float)])
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() / values.min() > WIDE)


def apart(lines: Sequence[Line]) -> bool:
    """Whether some lines end so early that a linear x would show nothing of them."""
    ends = [float(np.max(line.x[np.isfinite(line.y)])) for line in lines
            if np.isfinite(line.y).any()]  # fmt: skip
    return bool(ends) and min(ends) > 0 and max(ends) / min(ends) > WIDE


def calm(lines: Sequence[Line]) -> tuple[float, float] | None:
    """Limits of y that leave the first plunge of a training out, where it would dwarf the rest.

    Returns
    -------
    (float, float) or None
        None where the first twentieth of x is within three times the range of the rest, and
        for lines of a few points.
    """
    kept = [line for line in lines if np.isfinite(line.y).sum() >= 40]
    if not kept or len(kept) < sum(bool(np.isfinite(line.y).any()) for line in lines):
        return None
    begun = START * max(float(line.x.max()) for line in kept)
    whole = np.concatenate([line.y[np.isfinite(line.y)] for line in kept])
    rest = np.concatenate([line.y[np.isfinite(line.y) & (line.x > begun)] for line in kept])
    if not len(rest) or np.ptp(whole) <= 3 * np.ptp(rest) or np.ptp(rest) == 0:
        return None
    margin = 0.25 * float(np.ptp(rest))
    low, high = float(rest.min()) - margin, float(rest.max()) + margin
    return max(low, float(whole.min()) - margin), min(high, float(whole.max()) + margin)


def lying(
    lines: Sequence[Line], log: bool | None = None, levels: Sequence[float] = ()
) -> list[NDArray[np.bool_]]:
    """Which points of each line lie on each earlier one, as the chart shows them.

    Parameters
    ----------
    log : bool, optional
    levels : sequence of float
        Both as in `lines_chart`.
    """
    far = apart(lines)
    wide = logarithmic(lines, levels) if log is None else log

    def as_shown(x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """A straight line between two points is one on the axes that are shown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log10(x) if far else x, np.log10(y) if wide else y

    shown = [as_shown(*thin(line.x, line.y, log=far)) for line in lines]
    span = None if wide else calm(lines)
    tall = height(shown) if span is None else span[1] - span[0]
    return overlaps(shown, NEAR * tall, [as_shown(line.x, line.y) for line in lines])


def draw(
    axes: Any, line: Line, mask: NDArray[np.bool_], striped: Any, over: int, far: bool
) -> None:
    """One line, striped where it lies on earlier ones.

    Parameters
    ----------
    mask : ndarray of bool
        Points that lie on earlier lines, of those that `thin` leaves.
    striped : (float, (float, float))
        From `sunpipe.report.covered.stripes`.
    over : int
        How many later lines lie on this one: its points are larger, so as to be seen below.
    far : bool
        Whether x is logarithmic.
    """
    x, y = thin(line.x, line.y, log=far)
    dashes: dict[str, Any] = {"dashes": (4.5, 1.8)} if line.dashed else {}
    alone = line.marked or np.isfinite(line.y).sum() == 1
    axes.plot(x, np.where(joined(mask), y, np.nan), color=line.colour, **dashes)
    if mask.any():
        axes.plot(x, np.where(mask, y, np.nan), color=line.colour, linestyle=striped)
    if alone:
        axes.plot(x, y, color=line.colour, linestyle="none", marker="o", markersize=3 + 2.5 * over,
                  markeredgewidth=0)  # fmt: skip
    if line.error is not None:
        axes.errorbar(line.x, line.y, yerr=line.error, color=line.colour, fmt="none",
                      elinewidth=1.1, capsize=2.5)  # fmt: skip


def lines_chart(
    key: str, lines: Sequence[Line], xlabel: str, ylabel: str,
    levels: Sequence[float] = (), log: bool | None = None, size: tuple[float, float] = SIZE,
) -> str:  # fmt: skip
    """SVG of lines over their own x.

    Parameters
    ----------
    key : str
        Keeps the ids of several charts of one page apart.
    levels : sequence of float
        Dotted horizontal lines for comparison.
    log : bool, optional
        Logarithmic y; None: where the values span more than a factor `WIDE`.
    size : (float, float)
        Inches; the page scales it, so it decides how large the letters are.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    with drawn(key, *size) as (figure, out):
        axes = figure.subplots()
        found = lying(lines, log, levels)
        for place, line in enumerate(lines):
            later = zip(lines[place + 1 :], found[place + 1 :], strict=True)
            draw(axes, line, *stripes(found, place),
                 over=sum(other.colour != line.colour and bool(masks[place].any())
                          for other, masks in later), far=apart(lines))  # fmt: skip
        for value in levels:
            axes.axhline(value, color=GREY, linewidth=0.9, dashes=(2, 2))
        wide = logarithmic(lines, levels) if log is None else log
        if wide:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            few = (1, 2, 5) if high / low < 300 else (1,)
            axes.yaxis.set_major_locator(LogLocator(subs=few, numticks=8))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif (span := calm(lines)) is not None:
            axes.set_ylim(*span)
        if apart(lines):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return out[0]
