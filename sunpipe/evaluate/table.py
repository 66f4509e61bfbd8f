"""The result of ``sunpipe evaluate generator`` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sunpipe.evaluate.metrics import metric

ROW = "{:<20} {:>4} {:>11} {:>9} {:>9} {:>13} {:>9} {:>10} {:>9}  {}"
SCALE = {"blurred": "blurred", "real_halves": "real halves", "held_out": "held out"}


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def meaning(name: str, side_mm: float | None) -> str:
    """What a metric says; an octave of k by its longest wave, where the scale is known."""
    text, octave = metric(name).meaning, name.removeprefix("spectrum_db_k")
    if octave == name:
        return text
    waves = f" (waves of {side_mm / int(octave):.3g} Mm and less)" if side_mm else ""
    return f"{text.removesuffix(' from k')} from k = {octave}{waves}"


def columns(result: Mapping[str, Any]) -> list[tuple[str, int | None, Mapping[str, float]]]:
    """Title, number of images and values of each column of real images, and of its twin."""
    found: list[tuple[str, int | None, Mapping[str, float]]] = []
    for key, title in SCALE.items():
        column = result["scale"][key] or {}
        found.append((title, column.get("images"), column.get("metrics", {})))
        if key != "blurred":
            found.append(("generated", column.get("images"), column.get("generated", {})))
    return found


def render(result: Mapping[str, Any]) -> str:
    """Metric, unit, mean and spread over seeds, the same distance for real images, meaning."""
    beside = columns(result)
    lines = [
        f"{result['run']} at {result['kimg']:g} kimg: {result['count']} generated images of each"
        f" of {len(result['seeds'])} seeds, and as many real ones",
        "",
        ROW.format("metric", "unit", "generated", "+-", *(title for title, _, _ in beside),
                   "meaning"),
        ROW.format("images", "", result["count"], "", *("-" if images is None else images
                                                        for _, images, _ in beside), ""),
    ]  # fmt: skip
    for name, row in result["metrics"].items():
        scale = [number(values.get(name)) for _, _, values in beside]
        lines.append(
            ROW.format(name, row["unit"], number(row["mean"]), number(row["spread"]), *scale,
                       meaning(name, result["side_mm"]))
        )  # fmt: skip
    lines += [
        "",
        "blurred: training images, sigma 0.7 pixels; real halves: one half of the training images"
        " from the other, the floor; held out: the test split, from the training images.",
        "A distance from fewer images is larger: compare columns of equal numbers of images. Beside"
        " real halves and held out stands what generated images get in their place.",
    ]
    return "\n".join(line.rstrip() for line in lines)
