"""Rank correlations of many columns at once, undefined values left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats


def centred_ranks(values: Floats) -> Floats:
    """Ranks (N, K) of the columns of values (N, K), mean 0 and length 1; 0 where all are equal."""
    from scipy.stats import rankdata

    return centred(rankdata(np.asarray(values), axis=0))


def centred(values: Floats) -> Floats:
    """Columns (N, K) with mean 0 and length 1; 0 where a column does not vary."""
    wide = np.asarray(values, np.float64)
    wide = wide - wide.mean(axis=0)
    length = np.linalg.norm(wide, axis=0)
    return wide / np.where(length > 0, length, 1.0)


def spearman(scores: Floats, values: Floats, rows: NDArray[np.bool_]) -> Floats | None:
    """Spearman's correlation of scores (N, K) with values (N,) among `rows` with a value.

    Returns
    -------
    ndarray, shape (K,), or None
        None with fewer than three such rows.
    """
    used = rows & np.isfinite(values)
    if np.count_nonzero(used) < 3:
        return None
    return centred_ranks(scores[used]).T @ centred_ranks(values[used])
