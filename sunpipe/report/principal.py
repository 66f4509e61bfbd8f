"""Principal components of the latents, and what they go with (GANSpace, arXiv:2004.02546)."""

from __future__ import annotations

from typing import Any

from sunpipe.errors import DataError

NEXT = 2  # further quantities named beside the one a component reads as
SHOWN = 12


def principal(about: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per component of ``directions.json``; empty where none were asked for.

    Returns
    -------
    list of dict
        name, share of the variance; ``reads`` and ``spearman`` (None below chance); ``also``:
        further (quantity, Spearman) above chance; ``most`` and ``change``: what a step of one
        standard deviation moves most, in standard deviations; ``chance``.

    Raises
    ------
    DataError
        The table is damaged.
    """
    rows = []
    try:
        for component in about.get("components", []):
            level, reads = component["chance"], component["reads"]
            told = {name: row["spearman"] for name, row in component["quantities"].items()
                    if level is not None and abs(row["spearman"]) > level}  # fmt: skip
            ranked = sorted(told, key=lambda name: -abs(told[name]))
            moved = {name: change for name, change in component.get("response", {}).items()
                     if change is not None}  # fmt: skip
            most = max(moved, key=lambda name: abs(moved[name]), default=None)
            rows.append({
                "name": component["name"], "share": component["share"], "reads": reads,
                "spearman": told.get(reads), "chance": level,
                "also": [(name, told[name]) for name in ranked if name != reads][:NEXT],
                "most": most, "change": moved[most] if most else None,
            })  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"directions.json has components that cannot be read ({error!r})") from None
    return rows[:SHOWN]
