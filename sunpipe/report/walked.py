"""Directions: how well each tells high from low, what a step changes, and what else moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.report import numbers
from sunpipe.report.charts import BLUE, GREY, ORANGE, bands
from sunpipe.report.pictures import colour_limit, gradient, tile
from sunpipe.report.principal import principal
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Sources

if TYPE_CHECKING:
    from sunpipe.latent.directions import Directions

STRIPS = 3  # directions shown as images, those with the best accuracy
PLAIN, CONDITIONAL = "plain", "conditional"


def per_step(curve: dict[str, Any]) -> float | None:
    """Change of the median per step, from the steps nearest to -1 and +1, in its unit."""
    steps = np.asarray(curve["steps"], float)
    low, high = (int(np.argmin(np.abs(steps - end))) for end in (-1, 1))
    ends = curve["median"][low], curve["median"][high]
    if low == high or None in ends:
        return None
    return (ends[1] - ends[0]) / (steps[high] - steps[low])


def leak(
    rows: list[dict[str, Any]], target: str, quantity: str, conditional: bool
) -> dict[str, Any] | None:
    """One cell of the leakage table, where something can be said."""
    for row in rows:
        if (row["target"], row["quantity"], row["conditional"]) == (target, quantity, conditional):
            return row if row["slope"] is not None else None
    return None


def scores(found: Directions, leakage: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per direction, best accuracy first."""
    from sunpipe.latent.leakage import worst_leak

    names = list(found.quantities)
    share = found.about["recipe"]["settings"]["extremes"]
    rows = []
    for name, about in found.quantities.items():
        kinds = [kind for kind in (PLAIN, CONDITIONAL) if kind in about["calibration"]]
        rows.append({
            "name": name, "unit": about["unit"], "share": share, **about["accuracy"],
            "ridge_r2": about["ridge"]["r2"], "ridge": about["ridge"]["accuracy_extremes"],
            "angle": about.get("bootstrap_angle_deg", {}).get("median"),
            "steps": {kind: per_step(about["calibration"][kind]) for kind in kinds},
            "calibration": about["calibration"],
            "plain_leak": worst_leak(leakage, name, False, names),
            "conditional_leak": worst_leak(leakage, name, True, names),
            "no_conditional": about.get("no_conditional"),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -(row["extremes"] or 0))


def shade(slope: float) -> str:
    """Background of a leakage cell: blue or red by sign, deeper by size, full at 1."""
    depth = round(100 * min(abs(slope), 1.0))
    return f"color-mix(in srgb, var({'--warm' if slope > 0 else '--cool'}) {depth}%, transparent)"


def matrix(
    leakage: list[dict[str, Any]], targets: list[str], quantities: list[str], conditional: bool
) -> list[dict[str, Any]]:
    """Heat map rows, one per target: each cell's slope, interval and colour."""
    table = []
    for target in targets:
        cells: list[dict[str, Any]] = []
        for quantity in quantities:
            row = leak(leakage, target, quantity, conditional)
            if row is None:
                cells.append(
                    {
                        "text": numbers.DASH,
                        "style": "",
                        "title": "nothing can be said",
                        "own": False,
                    }
                )
                continue
            low, high = numbers.fixed(row["low"]), numbers.fixed(row["high"])
            cells.append({
                "text": numbers.fixed(row["slope"]), "own": quantity == target,
                "style": "" if quantity == target else f"background:{shade(row['slope'])}",
                "title": f"{target} to {quantity}: 95 % interval {low} to {high};"
                         f" {numbers.number(row['unit_slope'])} {row['unit']}",
            })  # fmt: skip
        table.append({"target": target, "cells": cells})
    return table


def strip(found: Directions, name: str, place: int = 0) -> dict[str, Any] | None:
    """Images along one direction from one base, with the measured value of each.

    Of the bases whose images are stored, number `place` in the order of the
    strength of their field: the strongest shows most.
    """
    walk = found.walk(name, PLAIN)
    if len(walk.images) <= place:
        return None
    middle = walk.images[:, int(np.argmin(np.abs(walk.steps))), 0]
    base = int(np.argsort(-np.abs(middle).mean(axis=(1, 2)), kind="stable")[place])
    fields, values = walk.images[base][:, 0], walk.column(name)[base]
    limit = colour_limit([fields])
    unit = walk.units[walk.names.index(name)]
    pictures = [
        tile(field, limit, f"{walk.channels[0]} at step {step:+g}",
             step=f"{step:+g}".replace("-", numbers.MINUS) if step else "0",
             value=numbers.with_unit(float(value), unit))
        for field, step, value in zip(fields, walk.steps, values, strict=True)
    ]  # fmt: skip
    return {"name": name, "tiles": pictures, "limit": limit,
            "channel": walk.channels[0], "raw": fields, "values": values,
            "steps": walk.steps, "unit": unit}  # fmt: skip


def curves(found: Directions) -> list[dict[str, Any]]:
    """Measured value against step of every direction, with the random control."""
    from sunpipe.latent.calibrate import curve

    control = found.walk("random", "random")
    charts = []
    for number, (name, about) in enumerate(found.quantities.items()):
        walks: dict[str, tuple[str, Any]] = {}
        if name in control.names:
            walks["random direction"] = (GREY, curve(control.steps, control.column(name)))
        walks["direction"] = (BLUE, about["calibration"][PLAIN])
        if CONDITIONAL in about["calibration"]:
            walks["conditional"] = (ORANGE, about["calibration"][CONDITIONAL])
        top = [value for _, line in walks.values() for value in line["p16"] + line["p84"]
               if value is not None]  # fmt: skip
        factor, label = numbers.axis_scale(top, about["unit"])
        charts.append({
            "name": name, "label": label,
            "svg": bands(f"walk-{number}", walks, factor, "step (standard deviations of w)",
                         f"{name} ({label})" if label else name),
        })  # fmt: skip
    return charts


def build(found: Directions) -> dict[str, Any]:
    """What ``directions.html`` shows."""
    leakage, targets = found.leakage(), list(found.quantities)
    rows = scores(found, leakage)
    strips = [strip(found, row["name"]) for row in rows[:STRIPS]]
    everything = list(dict.fromkeys(row["quantity"] for row in leakage))
    walk = found.walk(targets[0])
    return {
        "rows": rows, "left_out": found.about["left_out"], "targets": targets,
        "samples": found.about["sample_count"], "bases": len(walk.rows),
        "strips": [each for each in strips if each], "gradient": gradient(),
        "charts": curves(found), "everything": everything,
        "before": matrix(leakage, targets, targets, False),
        "after": matrix(leakage, targets, targets, True),
        "all_before": matrix(leakage, targets, everything, False),
        "all_after": matrix(leakage, targets, everything, True),
        "worst_before": _largest(rows, "plain_leak"),
        "worst_after": _largest(rows, "conditional_leak"),
        "components": principal(found.about),
    }  # fmt: skip


def _largest(rows: list[dict[str, Any]], key: str) -> float | None:
    slopes = [abs(row[key]["slope"]) for row in rows if row[key]]
    return float(np.max(slopes)) if slopes else None


def directions(sources: Sources) -> Section:
    """Directions and what they change."""
    found = sources.directions
    return section("directions", "Directions", sources, (found,), lambda: build(found.value))  # type: ignore[arg-type]
