"""Intervals by the bootstrap over clusters: whole HARPs are drawn, not their tiles.

Tiles of one HARP overlap and follow each other in time; drawn one by one they would
make intervals far too narrow (Davison and Hinkley 1997, section 3.8). A replicate is
a weight for each query: how often its HARP was drawn.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sunpipe.embed.correlation import pearson

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST_CLUSTERS = 3  # fewer say nothing about the next HARP
FEWEST_PAIRS = 3
CONSTANT = 1e-12  # of squared scale: a side that varies less does not vary


def cluster_weights(clusters: NDArray[Any], replicates: int, seed: int) -> Floats:
    """How often each query stands in each replicate, (R, N).

    Parameters
    ----------
    clusters : ndarray (N,)
        What is drawn with replacement, as a name for each query.
    replicates : int
    seed : int
    """
    codes = np.unique(clusters, return_inverse=True)[1].astype(np.int64)
    return _drawn(codes.tobytes(), replicates, seed)


@lru_cache(maxsize=8)  # all quantities of a retriever are asked with the same queries
def _drawn(codes: bytes, replicates: int, seed: int) -> Floats:
    mine = np.frombuffer(codes, np.int64)
    count = int(mine.max()) + 1
    deal = np.random.default_rng(seed)
    drawn = deal.multinomial(count, np.full(count, 1 / count), size=replicates)
    weights = drawn[:, mine].astype(np.float64)
    weights.setflags(write=False)
    return weights


def weighted_ranks(x: Floats, weights: Floats) -> Floats:
    """Midranks of ``x[i]`` repeated ``weights[r, i]`` times, for each replicate r.

    Parameters
    ----------
    x : ndarray (N,)
    weights : ndarray (R, N)
        Whole numbers.

    Returns
    -------
    ndarray (R, N)
        What `scipy.stats.rankdata` gives for the repeated values.
    """
    order = np.argsort(x, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(x[order]) != 0])
    each = np.add.reduceat(weights[:, order], first, axis=1)
    middle = np.cumsum(each, axis=1) - each + (each + 1) / 2
    ranks = np.empty_like(weights)
    ranks[:, order] = np.repeat(middle, np.diff(np.r_[first, len(x)]), axis=1)
    return ranks


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's r under each replicate's weights, (R,); NaN where a side does not vary.

    `x` and `y` are (N,), or (R, N) with their own values in each replicate.
    """
    a, b = (_near_zero(values, weights) for values in (x, y))
    total = weights.sum(axis=1)

    def moment(values: Floats) -> Floats:
        """Weighted mean of (N,) or (R, N) in each replicate."""
        if values.ndim == 1:
            return weights @ values / total
        return np.einsum("rn,rn->r", weights, values) / total

    mean_a, mean_b = moment(a), moment(b)
    var_a, var_b = moment(a * a) - mean_a**2, moment(b * b) - mean_b**2
    size = np.sqrt(np.maximum(var_a, 0) * np.maximum(var_b, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip((moment(a * b) - mean_a * mean_b) / size, -1, 1)
    return np.where(size > CONSTANT, r, np.nan)


def _near_zero(values: Floats, weights: Floats) -> Floats:
    """Shifted and scaled to the order of 1, so that moments of 1e22 lose no digits."""
    # Midranks of a replicate have the mean (T + 1) / 2, whatever the ties.
    middle = values.mean() if values.ndim == 1 else (weights.sum(axis=1, keepdims=True) + 1) / 2
    away = values - middle
    return np.asarray(away / (np.abs(away).max() or 1), np.float64)


def interval(replicates: Floats) -> tuple[float | None, float | None]:
    """Percentile interval; None when most replicates are undefined."""
    good = replicates[np.isfinite(replicates)]
    if 2 * len(good) < len(replicates):
        return None, None
    low, high = np.percentile(good, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def _estimate(value: float | None, replicates: Floats | None) -> dict[str, float | None]:
    low, high = (None, None) if replicates is None or value is None else interval(replicates)
    return {"value": value, "low": low, "high": high}


def mean(values: Floats, clusters: NDArray[Any], replicates: int, seed: int) -> dict[str, Any]:
    """Mean of the finite `values` (N,) with its interval over `clusters` (N,).

    Returns
    -------
    dict
        value, low, high (None when undefined), n, clusters.
    """
    good = np.isfinite(values)
    x, names = values[good], clusters[good]
    count = len(np.unique(names))
    found = None
    if count >= FEWEST_CLUSTERS:
        weights = cluster_weights(names, replicates, seed)
        found = weights @ x / weights.sum(axis=1)
    about = _estimate(float(x.mean()) if len(x) else None, found)
    return {**about, "n": len(x), "clusters": count}


def correlation(
    x: Floats, y: Floats, clusters: NDArray[Any], replicates: int, seed: int
) -> dict[str, Any]:
    """Pearson's and Spearman's coefficient of pairs, with intervals over clusters.

    Parameters
    ----------
    x, y : ndarray (N,)
        Pairs with an undefined value are left out.
    clusters : ndarray (N,)
    replicates, seed : int

    Returns
    -------
    dict
        n, clusters, pearson and spearman, each with value, low, high.
    """
    good = np.isfinite(x) & np.isfinite(y)
    a, b, names = x[good], y[good], clusters[good]
    count = len(np.unique(names))
    found: dict[str, Any] = {"n": len(a), "clusters": count}
    enough = len(a) >= FEWEST_PAIRS
    weights = cluster_weights(names, replicates, seed) if count >= FEWEST_CLUSTERS else None
    for name in ("pearson", "spearman"):
        ranked = name == "spearman"
        one, two = (rankdata(a), rankdata(b)) if ranked else (a, b)
        many = None
        if weights is not None:
            sides = (weighted_ranks(a, weights), weighted_ranks(b, weights)) if ranked else (a, b)
            many = weighted_pearson(*sides, weights)
        found[name] = _estimate(pearson(one, two) if enough else None, many)
    return found
