"""How well the match of a query has the query's physics, against matches dealt at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
FEWEST = 3


def pearson(x: Floats, y: Floats) -> float | None:
    """Pearson's r of two columns, or None where one of them does not vary."""
    # Scaled first: a flux of 1e22 squared and summed is far from 1.
    x, y = x - x.mean(), y - y.mean()
    x, y = x / (np.abs(x).max() or 1), y / (np.abs(y).max() or 1)
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(np.clip(x @ y / size, -1, 1)) if size > 0 else None


def correlation(query: Floats, match: Floats, shuffles: int, seed: int) -> dict[str, Any]:
    """Pearson's and Spearman's coefficient between queries and their best matches.

    Parameters
    ----------
    query, match : float64 ndarray (N,)
        One quantity; pairs with an undefined value are left out.
    shuffles : int
        Times that the matches are dealt to the queries at random, for the control.
    seed : int
        Of the control.

    Returns
    -------
    dict
        n, pearson, spearman (None when undefined), and for each the control:
        mean over the shuffles and the 95th percentile of its magnitude.
    """
    both = np.isfinite(query) & np.isfinite(match)
    x, y = query[both], match[both]
    found: dict[str, Any] = {"n": int(both.sum())}
    for name in ("pearson", "spearman"):
        a, b = (x, y) if name == "pearson" else (rankdata(x), rankdata(y))
        value = pearson(a, b) if len(a) >= FEWEST else None
        found[name] = value
        found[f"{name}_shuffled"] = found[f"{name}_shuffled_p95"] = None
        if value is not None and shuffles:
            deal = np.random.default_rng(seed)
            control = np.array([pearson(a, deal.permutation(b)) for _ in range(shuffles)], float)
            found[f"{name}_shuffled"] = float(control.mean())
            found[f"{name}_shuffled_p95"] = float(np.percentile(np.abs(control), 95))
    return found
