"""Distances of generated from real images: over the training, and at its end with error bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.evaluate.metrics import metric
from sunpipe.evaluate.table import meaning
from sunpipe.files import read_json
from sunpipe.report.charts import BLUE
from sunpipe.report.cost import finite
from sunpipe.report.lines import Chart, Line, drawable, lines_chart
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Found, Sources
from sunpipe.run import read_stats

FILE = "metric-generator"
NOT_METRICS = ("nimg", "kimg", "images", "not_finite", "seconds", "time")
SHOWN = ("fd_random", "fd_encoder", "spectrum_db", "w1_pixels", "w1_usflux")  # as charts
XLABEL = "images shown (thousands, kimg)"
BESIDE = {"real_halves": "real halves", "held_out": "held out"}


@dataclass(frozen=True)
class Measured:
    """What ``sunpipe evaluate generator`` found at one checkpoint.

    Attributes
    ----------
    kimg : float
    count : int
        Images on either side.
    seeds : int
    means, spreads : dict
        Metric to mean, and to the standard deviation over seeds of the latents.
    beside : dict
        ``real_halves`` and ``held_out`` (where they were measured) to (images, metric to
        distance between real images).
    side_mm : float or None
    """

    kimg: float
    count: int
    seeds: int
    means: dict[str, float]
    spreads: dict[str, float]
    beside: dict[str, tuple[int, dict[str, float]]]
    side_mm: float | None


def known(name: str) -> bool:
    """Whether `name` is a metric of this version."""
    try:
        metric(name)
    except ValueError:
        return False
    return True


def label(name: str) -> str:
    """A metric with its unit."""
    unit = metric(name).unit
    return f"{name} ({'σ' if unit == 'std' else unit})" if unit else name


def curve_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Rows of ``metric-generator.jsonl``.

    Raises
    ------
    DataError
        A line that is no row of it.
    """
    rows = read_stats(run.folder, FILE)
    if not all(isinstance(row, dict) and np.isfinite(finite(row.get("kimg"))) for row in rows):
        raise DataError(f"{FILE}.jsonl holds a line that is no measurement")
    return rows


def curve(rows: list[dict[str, Any]], name: str) -> tuple[Any, Any]:
    """(kimg, value) of one metric; NaN where it was not measured."""
    return (np.array([finite(row.get("kimg")) for row in rows]),
            np.array([finite(row.get(name)) for row in rows]))  # fmt: skip


def measured(run: RunFolder) -> Measured | None:
    """The evaluation of the run's latest measured checkpoint; None where there is none.

    Raises
    ------
    DataError
        A file of ``metrics/`` that is damaged.
    """
    found: list[dict[str, Any]] = []
    for path in sorted((run.folder / "metrics").glob("generator-kimg-*.json")):
        content = read_json(path)
        if not isinstance(content, dict) or not np.isfinite(finite(content.get("kimg"))):
            raise DataError(f"metrics/{path.name} is no evaluation of a generator")
        found.append(content)
    if not found:
        return None
    last = max(found, key=lambda content: finite(content["kimg"]))
    try:
        rows = {name: row for name, row in last["metrics"].items() if known(name)}
        scale = {key: last["scale"].get(key) for key in BESIDE}
        return Measured(
            kimg=float(last["kimg"]), count=int(last["count"]), seeds=len(last["seeds"]),
            means={name: finite(row["mean"]) for name, row in rows.items()},
            spreads={name: finite(row["spread"]) for name, row in rows.items()},
            beside={key: (int(column["images"]), {name: finite(value) for name, value
                                                  in column["metrics"].items()})
                    for key, column in scale.items() if column},
            side_mm=float(last["side_mm"]) if last.get("side_mm") else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"metrics/ holds an evaluation that cannot be read ({error!r})") from None


def table(found: Measured) -> list[dict[str, Any]]:
    """One row per metric: mean, spread, and the same distance between real images."""
    return [
        {
            "name": name, "unit": "σ" if metric(name).unit == "std" else metric(name).unit,
            "mean": mean, "spread": found.spreads[name],
            "beside": {key: found.beside[key][1].get(name) if key in found.beside else None
                       for key in BESIDE},
            "meaning": meaning(name, found.side_mm),
        }
        for name, mean in found.means.items()
    ]  # fmt: skip


def charts(rows: list[dict[str, Any]], found: Measured | None) -> list[Chart]:
    """Each distance over the training; the last evaluation as a point with its error bar."""
    drawn = []
    for name in SHOWN:
        lines = [Line(*curve(rows, name), colour=BLUE, marked=True)]
        levels = []
        if found is not None and name in found.means:
            end = [np.array([value]) for value in (found.kimg, found.means[name],
                                                   found.spreads[name])]  # fmt: skip
            lines.append(Line(end[0], end[1], BLUE, error=end[2], marked=True))
            images, real = found.beside.get("held_out", (0, {}))
            if images == found.count and np.isfinite(real.get(name, np.nan)):
                levels.append(real[name])
        if drawable(lines):
            svg = lines_chart(f"quality-{name}", lines, XLABEL, label(name), levels)
            drawn.append(Chart(label(name), svg))
    return drawn


def build(run: RunFolder, rows: list[dict[str, Any]], found: Measured | None) -> dict[str, Any]:
    """What ``quality.html`` shows."""
    drawn = charts(rows, found)
    held_out = found.beside.get("held_out") if found else None
    return {
        "dotted": held_out is not None and found is not None and held_out[0] == found.count,
        "charts": drawn, "points": len(rows),
        "images": rows[-1].get("images") if rows else None, "table": table(found) if found else [],
        "measured": found,
        "beside": {key: (text, found.beside[key][0]) for key, text in BESIDE.items()
                   if key in found.beside} if found else {},
    }  # fmt: skip


def read(run: RunFolder) -> Found[tuple[list[dict[str, Any]], Measured | None]]:
    """Both kinds of measurement of a run."""
    try:
        rows, found = curve_rows(run), measured(run)
    except DataError as error:
        return Found(None, "broken", str(error), ("evaluate generator",))
    if not rows and found is None:
        return Found(None, "missing", "not measured yet", ("evaluate generator",))
    return Found((rows, found), "current")


def quality(sources: Sources) -> Section:
    """Distances while training, and at the end with their spread."""
    run = sources.run.value
    needed: Found[Any] = (read(run) if run is not None
                          else sources.run.blocked("the run", "evaluate generator"))  # fmt: skip
    return section("quality", "Distance from real", sources, (needed,),
                   lambda: build(run, *needed.value))  # type: ignore[arg-type, misc]  # fmt: skip
