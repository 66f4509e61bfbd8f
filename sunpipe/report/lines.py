"""Several lines with their own x on one chart: a curve of one run, or those of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.report.charts import GREY, RUNS, drawn, thin

Floats = NDArray[np.float64]
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


def lines_chart(
    key: str, lines: Sequence[Line], xlabel: str, ylabel: str,
    levels: Sequence[float] = (), log: bool | None = None,
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
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with drawn(key) as (figure, out):
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
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(left=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return out[0]
