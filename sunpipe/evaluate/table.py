"""The result of ``sunpipe evaluate generator`` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sunpipe.evaluate.metrics import metric

ROW = "{:<20} {:>4} {:>11} {:>9} {:>11} {:>11} {:>11}  {}"
SCALE = ("real_halves", "held_out", "blurred")


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


def render(result: Mapping[str, Any]) -> str:
    """Metric, unit, mean and spread over seeds, the same distance for real images, meaning."""
    lines = [
        f"{result['run']} at {result['kimg']:g} kimg: {result['count']} generated images of"
        f" {len(result['seeds'])} seeds each, {result['real']} real",
        "",
        ROW.format("metric", "unit", "generated", "+-", "real halves", "held out", "blurred",
                   "meaning"),
    ]  # fmt: skip
    for name, row in result["metrics"].items():
        scale = [(result["scale"][key] or {}).get(name) for key in SCALE]
        lines.append(
            ROW.format(name, row["unit"], number(row["mean"]), number(row["spread"]),
                       *map(number, scale), meaning(name, result["side_mm"]))
        )  # fmt: skip
    lines += [
        "",
        "real halves: one half of the training images from the other, the floor;"
        " held out: the test split; blurred: training images, sigma 0.7 pixels",
    ]
    return "\n".join(lines)
