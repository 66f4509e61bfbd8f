"""Which samples an SVM learns from, and which it is judged by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats

Labels = NDArray[np.int8]


def held_out(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Mark the samples kept for judging: pure in (count, share, seed).

    Returns
    -------
    ndarray of bool, shape (count,)
        ``round(share * count)`` of them are True, at least one and never all.
    """
    chosen = min(max(round(share * count), 1), count - 1)
    mask = np.zeros(count, bool)
    mask[np.random.default_rng([seed, 0x7E57]).permutation(count)[:chosen]] = True
    return mask


def extremes(values: Floats, share: float) -> Labels:
    """Label the top `share` of the defined values +1, the bottom `share` -1, the rest 0.

    Parameters
    ----------
    values : ndarray, shape (N,)
        One quantity; NaN and infinities are undefined and get 0.
    share : float
        Between 0 and 0.5.

    Returns
    -------
    ndarray of int8, shape (N,)
    """
    labels = np.zeros(len(values), np.int8)
    defined = np.flatnonzero(np.isfinite(values))
    size = int(share * len(defined))
    if size:
        order = defined[np.argsort(values[defined], kind="stable")]
        labels[order[:size]] = -1
        labels[order[-size:]] = 1
    return labels


def middle(values: Floats, extreme: Labels) -> Labels:
    """Label the defined samples that are not extreme +1 above their median, else -1.

    This is what a direction must do between the extremes it was trained on.
    """
    labels = np.zeros(len(values), np.int8)
    rows = np.flatnonzero(np.isfinite(values) & (extreme == 0))
    if len(rows):
        labels[rows] = np.where(values[rows] > np.median(values[rows]), 1, -1)
    return labels


def unfit(
    values: Floats, labels: Labels, test: NDArray[np.bool_], dims: int, max_undefined: float
) -> str | None:
    """Why no direction can be fitted to a quantity, or None.

    Parameters
    ----------
    values, labels : ndarray, shape (N,)
        The quantity and its `extremes`.
    test : ndarray of bool, shape (N,)
        From `held_out`.
    dims : int
        Dimensions of w: with fewer training samples than that any labels can be
        separated, and the direction means nothing.
    max_undefined : float
        Largest share of samples without a value.
    """
    defined = np.isfinite(values)
    if not defined.any():
        return "undefined for every sample"
    undefined = 1 - float(defined.mean())
    if undefined > max_undefined:
        return f"undefined for {undefined:.0%} of the samples (at most {max_undefined:.0%} allowed)"
    low, high = values[labels == -1], values[labels == 1]
    if len(low) == 0 or low.max() >= high.min():
        distinct = len(np.unique(values[defined]))
        return (
            f"the same value ({values[defined][0]:.6g}) for every sample"
            if distinct == 1
            else f"its extremes do not differ ({distinct} distinct values)"
        )
    train = int(((labels != 0) & ~test).sum())
    if train < dims:
        return (
            f"only {train} extreme samples to learn {dims} dimensions from;"
            " raise sample.count or directions.extremes"
        )
    for side, name in ((1, "top"), (-1, "bottom")):
        if not ((labels == side) & test).any() or not ((labels == side) & ~test).any():
            return f"no {name} extreme on one side of the train/test split; raise sample.count"
    return None
