"""The keywords as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sunpipe.physics.quantities import NEEDS_VECTOR, QUANTITIES

ROW = "{:<9} {:>14} {:<8} {:>12} {:>14} {:>10}  {}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"


def _difference(name: str, value: float | None, header: float | None, convention: str) -> str:
    """Relative to the header, where both are in one unit."""
    units = QUANTITIES[name].units
    if value is None or header is None or units[convention] != units["jsoc"]:
        return "-"
    if header == 0:
        return "0" if value == 0 else "-"
    return f"{value / header - 1:+.1e}"


def render(result: Mapping[str, Any]) -> str:
    """Keyword, value, unit, formal error, header value, relative difference, meaning.

    Parameters
    ----------
    result : mapping
        From `sunpipe.physics.record.measure_files`.
    """
    convention = result["convention"]
    lines = [
        f"{result['record']}  convention {convention}, mask {result['mask']}"
        f" ({result['cmask']} pixels), {result['seconds']:.2f} s",
        "",
        ROW.format("keyword", "value", "unit", "error", "header", "difference", "meaning"),
    ]
    left_out = [name for name, why in result["reasons"].items() if why == NEEDS_VECTOR]
    for name, value in result["keywords"].items():
        if name in left_out:
            continue
        quantity = QUANTITIES[name]
        header = result["header"].get(name)
        lines.append(
            ROW.format(
                name,
                _number(value),
                result["units"][name],
                _number(result["errors"].get(quantity.error)),
                _number(header),
                _difference(name, value, header, convention),
                quantity.meaning if value is not None else f"null: {result['reasons'][name]}",
            ).rstrip()
        )
    lines += [
        f"{name:<9} {'-':>14} null: {result['reasons'][name]}"
        for name, value in result["errors"].items()
        if value is None and name in result["reasons"]
    ]
    if left_out:
        lines += ["", f"{len(left_out)} more keywords need the vector field: --br, --bt and --bp"]
    return "\n".join(lines)
