"""Directions in w: unit vectors, angles, and projecting others out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SAME = 1e-5  # normals closer than this differ by the solver's rounding
NOTHING_LEFT = 1e-5  # share of a unit vector below which only rounding is left


def unit(vectors: Floats) -> Floats:
    """Scale vectors (..., D) to length 1."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def angle(left: Floats, right: Floats) -> Floats:
    """Angle between unit vectors (..., D), degrees."""
    return np.degrees(np.arccos(np.clip(np.sum(left * right, axis=-1), -1.0, 1.0)))


def conditional(normal: Floats, others: Floats, root: Floats) -> Floats | None:
    """Where to move w so that one score rises and the scores of `others` stay.

    The score of a quantity is ``n . w + b``, so a step d leaves it unchanged
    when ``n . d = 0``. Of all steps of the same length in the metric of C, the
    one that raises the score of t most without changing the others' is
    ``d = C t - C N^T (N C N^T)^-1 N C t``, a Gram solve.

    With C the identity this is the conditional direction of InterFaceGAN (Shen
    et al. 2020, arXiv:1907.10786, section 2.2), t itself when there are no
    others. With C the covariance of w it is ``C t`` without others: not the
    plane's normal, which may point where w never varies, but how w changes when
    the score does (Haufe et al. 2014, NeuroImage 87, 96, eq. 6). It is solved by
    least squares, so that normals which are nearly parallel do no harm.

    Parameters
    ----------
    normal : ndarray, shape (D,)
        Unit normal t.
    others : ndarray, shape (K, D)
        Unit normals N, any K including 0.
    root : ndarray, shape (D, D)
        Square root of C: `sunpipe.latent.axes.Axes.root`.

    Returns
    -------
    ndarray, shape (D,), or None
        A unit vector along which the score of `normal` rises; None when
        `normal` lies in the span of `others`.
    """
    target = root @ np.asarray(normal, np.float64)
    rest = target.copy()
    if len(others):
        basis = unit(np.asarray(others, np.float64) @ root).T
        for _ in range(2):  # once more: rounding
            rest -= basis @ np.linalg.lstsq(basis, rest, rcond=SAME)[0]
    if np.linalg.norm(rest) <= NOTHING_LEFT * np.linalg.norm(target):
        return None
    return unit(root @ rest)


def random_directions(count: int, dims: int, seed: int) -> Floats:
    """Unit vectors (count, D), uniform on the sphere, pure in the arguments."""
    return unit(np.random.default_rng([seed, 0xD1CE]).standard_normal((count, dims)))
