"""Several lines with their own x on one chart: a curve of one run, or those of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.report.charts import GREY, RUNS, drawn, thin

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
    """A chart as the templates show it."""

    title: str
    svg: str


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
        for line in lines:
            x, y = thin(line.x, line.y)
            dashes: dict[str, Any] = {"dashes": (4.5, 1.8)} if line.dashed else {}
            alone = line.marked or np.isfinite(line.y).sum() == 1
            axes.plot(x, y, color=line.colour, marker="o" if alone else None, markersize=3,
                      **dashes)  # fmt: skip
            if line.error is not None:
                axes.errorbar(line.x, line.y, yerr=line.error, color=line.colour, fmt="none",
                              elinewidth=1.1, capsize=2.5)  # fmt: skip
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
