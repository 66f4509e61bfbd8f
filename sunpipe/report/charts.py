"""Line charts as SVG inside the page: they take the page's font and its light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sunpipe.plots import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colour-blind-safe (Okabe and Ito 2008); replaced by the page's variables so that they follow
# the reader's light or dark setting.
BLUE, ORANGE, GREEN, GREY, GRID = "#0072b2", "#d55e00", "#009e73", "#767c85", "#d8dce2"
PURPLE, AMBER, SLATE = "#cc79a7", "#b98a00", "#49566b"
RUNS = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SLATE)  # of a comparison, in the order asked for
VARIABLES = {
    INK: "currentColor", BLUE: "var(--blue)", ORANGE: "var(--orange)",
    GREEN: "var(--green)", GREY: "var(--muted)", GRID: "var(--line)",
    PURPLE: "var(--purple)", AMBER: "var(--amber)", SLATE: "var(--slate)",
}  # fmt: skip
Floats = NDArray[np.float64]
POINTS = 400  # of a line; more would weigh the page down and be seen by no one
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 8.5, "axes.linewidth": 0.6,
    "axes.edgecolor": GREY, "axes.labelcolor": INK, "text.color": INK, "xtick.color": GREY,
    "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.5, "axes.axisbelow": True, "lines.linewidth": 1.4,
    "legend.frameon": False, "legend.fontsize": 8, "xtick.major.width": 0.5,
    "ytick.major.width": 0.5, "xtick.major.size": 3, "ytick.major.size": 3,
    "axes.formatter.useoffset": False, "axes.unicode_minus": True,
}  # fmt: skip


@contextmanager
def drawn(key: str, width: float = 3.5, height: float = 2.5) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure of `width` x `height` inches; its SVG is appended to the list afterwards.

    `key` keeps the ids of several charts of one page apart.
    """
    import matplotlib

    from sunpipe.plots import new_figure

    out: list[str] = []
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = new_figure(width, height)
        yield figure, out
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    out.append(inline(buffer.getvalue(), key))


def inline(svg: str, key: str) -> str:
    """A whole SVG document as an element of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r'<svg\1 aria-hidden="true"', svg)
    svg = re.sub(r"""font: ([\d.]+)px [^;"]*""", r"font-size: \1px", svg)
    svg = svg.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "").replace("xlink:", "")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def thin(
    x: ArrayLike, y: ArrayLike, most: int = POINTS, log: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most about `most` points of a line, with the extremes of every stretch kept.

    Parameters
    ----------
    x, y : array (N,)
    most : int
        Of each of ``most / 2`` stretches the lowest and the highest point stay.
    log : bool
        The stretches are of equal length on a logarithmic axis of x, else of equally many points.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    if len(a) <= most:
        return a, b
    kept: list[int] = []
    parts = np.array_split(np.arange(len(a)), most // 2)
    if log and (a > 0).all():
        ends = np.geomspace(a.min(), a.max(), most // 2 + 1)[1:-1]
        parts = [
            part for part in np.split(np.arange(len(a)), np.searchsorted(a, ends)) if len(part)
        ]
    for part in parts:
        good = part[np.isfinite(b[part])]
        if not len(good):
            kept.append(int(part[0]))  # the gap stays a gap
            continue
        low, high = good[np.argmin(b[good])], good[np.argmax(b[good])]
        kept += sorted({int(low), int(high)})
    kept = sorted({0, *kept, len(a) - 1})
    return a[kept], b[kept]


def curves(
    key: str, x: Sequence[float], lines: Mapping[str, tuple[str, Sequence[float]]],
    xlabel: str, ylabel: str, legend: bool = True,
) -> str:  # fmt: skip
    """Lines over one x: label to (colour, values)."""
    with drawn(key) as (figure, out):
        axes = figure.subplots()
        for label, (colour, values) in lines.items():
            axes.plot(*thin(x, values), color=colour, label=label)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if legend:
            axes.legend()
    return out[0]


def histograms(
    key: str, groups: dict[str, tuple[str, NDArray[np.float64]]], low: float, high: float,
    xlabel: str, bins: int = 32,
) -> str:  # fmt: skip
    """Shares per bin from `low` to `high`; values beyond stand in the last bins.

    The first group is filled; label to (colour, finite values).
    """
    edges = np.linspace(low, high, bins + 1)
    with drawn(key, 3.5, 2.1) as (figure, out):
        axes = figure.subplots()
        for place, (label, (colour, values)) in enumerate(groups.items()):
            if not len(values):
                continue
            share = np.histogram(np.clip(values, low, high), edges)[0] / len(values) * 100
            if place == 0:
                axes.stairs(share, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
            axes.stairs(share, edges, color=colour, label=label, linewidth=1.3)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("% of patches")
        axes.set_ylim(bottom=0)
    return out[0]


def bands(
    key: str, walks: dict[str, tuple[str, Any]], factor: float, xlabel: str, ylabel: str
) -> str:
    """Median and 16-84 % band against step: label to (colour, calibration curve)."""
    with drawn(key) as (figure, out):
        axes = figure.subplots()
        for label, (colour, curve) in walks.items():
            steps = np.asarray(curve["steps"], float)
            low, mid, high = (
                np.asarray(curve[name], float) / factor for name in ("p16", "median", "p84")
            )
            axes.fill_between(steps, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(steps, mid, color=colour, label=label, marker="o", markersize=2.5)
        axes.set_ylim(*visible([curve for _, curve in walks.values()], factor))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return out[0]


def visible(curves: Sequence[dict[str, Any]], factor: float) -> tuple[float, float]:
    """Limits that show all medians, and their bands as far as those do not dwarf them."""
    low, mid, high = (
        np.array([curve[name] for curve in curves], float) / factor
        for name in ("p16", "median", "p84")
    )
    if not np.isfinite(mid).any():
        return 0.0, 1.0
    bottom, top = np.nanmin(mid), np.nanmax(mid)
    room = 2 * max(top - bottom, float(np.nanmedian(high - low)), 1e-12)
    bottom, top = max(np.nanmin(low), bottom - room), min(np.nanmax(high), top + room)
    margin = 0.05 * (top - bottom) or 1.0
    return float(bottom - margin), float(top + margin)


def scatter(
    key: str, x: NDArray[np.float64], y: NDArray[np.float64], xlabel: str, ylabel: str
) -> str:
    """Points with the line of equality."""
    with drawn(key, 3.3, 2.9) as (figure, out):
        axes = figure.subplots()
        both = np.concatenate([x, y])
        low, high = float(both.min()), float(both.max())
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, dashes=(4, 3))
        axes.scatter(x, y, s=13, color=BLUE, alpha=0.65, linewidths=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
    return out[0]


def spectra(
    key: str, wavelength: NDArray[np.float64], lines: dict[str, tuple[str, NDArray[np.float64]]]
) -> str:
    """Median and 16-84 % of power (N, K) over images against wavelength, both logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from sunpipe.report.numbers import power as power_of_ten

    with drawn(key, 3.5, 2.5) as (figure, out):
        axes = figure.subplots()
        for label, (colour, values) in lines.items():
            low, mid, high = np.percentile(values, [16, 50, 84], axis=0)
            axes.fill_between(wavelength, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(wavelength, mid, color=colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: power_of_ten(round(np.log10(value))))
        )
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("wavelength (Mm)")
        axes.set_ylabel("power of Br (G²)")
    return out[0]
