"""What else changes when a target changes, with intervals over base latents."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from sunpipe.latent.calibrate import response
from sunpipe.latent.direction import Floats
from sunpipe.latent.walks import Walk

REPLICATES = 1000
INTERVAL = (2.5, 97.5)
LEAST_BASES = 4  # fewer defined bases give no interval


def natural(values: Floats) -> Floats:
    """Natural standard deviation of each quantity over the samples: (N, Q) to (Q,).

    Half the width between the 16th and 84th percentile: one standard deviation
    of a normal distribution, and not at the mercy of a few outliers. NaN where
    it is 0 or fewer than two values are defined.
    """
    deviations = np.full(values.shape[1], np.nan)
    for number, column in enumerate(values.T):
        defined = column[np.isfinite(column)]
        if len(defined) > 1:
            low, high = np.percentile(defined, [16, 84])
            deviations[number] = (high - low) / 2 or np.nan
    return deviations


def ratio_interval(
    target: Floats, other: Floats, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Ratio of median responses with its bootstrap interval over bases.

    Parameters
    ----------
    target, other : ndarray, shape (B,)
        Change per step of the target and of another quantity, in standard
        deviations; bases undefined in either are left out.
    seed : int

    Returns
    -------
    slope, low, high : float or None
        95 % interval. All None where too few bases are defined, or where the
        target's own response is not told from zero: nothing can then be said
        per unit of the target.
    """
    defined = np.isfinite(target) & np.isfinite(other)
    target, other = target[defined], other[defined]
    if len(target) < LEAST_BASES:
        return None, None, None
    drawn = np.random.default_rng([seed, 0x1EAC]).integers(
        len(target), size=(REPLICATES, len(target))
    )
    below = np.median(target[drawn], axis=1)
    low, high = np.percentile(below, INTERVAL)
    if low <= 0 <= high:
        return None, None, None
    low, high = np.percentile(np.median(other[drawn], axis=1) / below, INTERVAL)
    return float(np.median(other) / np.median(target)), float(low), float(high)


def leaks(walk: Walk, deviations: Floats, seed: int) -> list[dict[str, Any]]:
    """Change of every quantity per natural standard deviation of the walk's target.

    Parameters
    ----------
    walk : Walk
    deviations : ndarray, shape (Q,)
        Natural standard deviations of the walk's quantities, from `natural`.
    seed : int

    Returns
    -------
    list of dict
        A row per quantity, the target itself (slope 1) included: target,
        quantity, conditional, slope (standard deviations per standard
        deviation), low, high (95 % over bases), unit_slope (the same in `unit`).
        slope, low, high and unit_slope are None where nothing can be said.
    """
    changes = response(walk.steps, walk.values) / deviations
    place = walk.names.index(walk.target)
    rows = []
    for number, (name, unit) in enumerate(zip(walk.names, walk.units, strict=True)):
        slope, low, high = ratio_interval(changes[:, place], changes[:, number], seed)
        scale = deviations[number] / deviations[place]
        rows.append({
            "target": walk.target, "quantity": name, "conditional": walk.kind == "conditional",
            "slope": slope, "low": low, "high": high,
            "unit_slope": None if slope is None else float(slope * scale),
            "unit": f"{unit or '1'} per {walk.units[place] or '1'}",
        })  # fmt: skip
    return rows


def worst_leak(
    rows: Iterable[dict[str, Any]], target: str, conditional: bool,
    among: Collection[str] | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """The other quantity that changes most per change of the target.

    Parameters
    ----------
    rows : iterable of dict
        The leakage table, from `leaks`.
    target : str
    conditional : bool
        Along which of the target's two directions.
    among : collection of str, optional
        Quantities to look at; all without.

    Returns
    -------
    dict or None
        Its quantity, slope, low, high; None where nothing can be said.
    """
    others = [row for row in rows if row["target"] == target and row["slope"] is not None
              and row["conditional"] == conditional and row["quantity"] != target
              and (among is None or row["quantity"] in among)]  # fmt: skip
    if not others:
        return None
    worst = max(others, key=lambda row: abs(row["slope"]))
    return {key: worst[key] for key in ("quantity", "slope", "low", "high")}
