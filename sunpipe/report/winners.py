"""Final distances of several runs, and which is best where the difference says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sunpipe.evaluate.metrics import metric
from sunpipe.evaluate.table import meaning
from sunpipe.report.quality import NOT_METRICS, Measured, known

SIGMAS = 2.0  # a difference below so many of its standard deviations is none


def best(means: Sequence[float], spreads: Sequence[float]) -> int | None:
    """Which of several distances is the lowest, if that can be said.

    Parameters
    ----------
    means, spreads : sequence of float
        Means and standard deviations over seeds; NaN where a run was not measured. The
        size counts: of a signed distance 0 is best.

    Returns
    -------
    int or None
        None when under two were measured, or when the lowest is nearer to the next than
        two standard deviations of their difference, ``sqrt(a**2 + b**2)``.
    """
    whole = [place for place, (mean, spread) in enumerate(zip(means, spreads, strict=True))
             if math.isfinite(mean) and math.isfinite(spread)]  # fmt: skip
    if len(whole) < 2:
        return None
    first, *others = sorted(whole, key=lambda place: abs(means[place]))
    for other in others:
        difference = abs(means[other]) - abs(means[first])
        if difference <= SIGMAS * math.hypot(spreads[first], spreads[other]):
            return None
    return first


def measured_rows(found: Sequence[Measured | None], comparable: bool) -> list[dict[str, Any]]:
    """One row per metric: mean and spread of each run, and the place of the best.

    Parameters
    ----------
    found : sequence of Measured or None
        Of each run.
    comparable : bool
        Whether all were trained on the same data; else none is called best.
    """
    there = [each for each in found if each is not None]
    names = list(dict.fromkeys(name for each in there for name in each.means))
    equal = comparable and len({each.count for each in there}) == 1
    rows = []
    for name in names:
        pairs = [(each.means.get(name, math.nan), each.spreads.get(name, math.nan))
                 if each is not None else (math.nan, math.nan) for each in found]  # fmt: skip
        unit = metric(name).unit
        rows.append({
            "name": name, "unit": "σ" if unit == "std" else unit, "pairs": pairs,
            "best": best([mean for mean, _ in pairs], [spread for _, spread in pairs])
            if equal else None,
            "meaning": meaning(name, there[0].side_mm if comparable else None),
        })  # fmt: skip
    return rows


def last_rows(curves: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The last distances measured while training, for runs that were never evaluated.

    One set of latents has no error, so none is called best.
    """
    ends = [rows[-1] if rows else {} for rows in curves]
    names = [name for name in dict.fromkeys(name for end in ends for name in end)
             if name not in NOT_METRICS and known(name)]  # fmt: skip
    return [{"name": name, "unit": "σ" if metric(name).unit == "std" else metric(name).unit,
             "values": [end.get(name) for end in ends], "meaning": meaning(name, None)}
            for name in names]  # fmt: skip
