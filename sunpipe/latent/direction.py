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


def conditional(direction: Floats, others: Floats) -> Floats | None:
    """The part of a direction along which the boundaries of `others` are not crossed.

    The score of another quantity at w is ``n . w + b``, so a step d leaves it
    unchanged when ``n . d = 0``. Removing the span of all n at once is the Gram
    solve ``d = t - N^T (N N^T)^-1 N t`` (Shen et al. 2020, InterFaceGAN, eq. 8
    for one n); it is done by least squares, so that normals which are nearly
    parallel do no harm.

    Parameters
    ----------
    direction : ndarray, shape (D,)
        Unit vector t.
    others : ndarray, shape (K, D)
        Unit vectors n, any K including 0.

    Returns
    -------
    ndarray, shape (D,), or None
        A unit vector with a positive component along `direction`; None when
        `direction` lies in the span of `others`.
    """
    direction = unit(direction)
    if len(others) == 0:
        return direction
    basis = np.asarray(others, np.float64).T
    rest = direction - basis @ np.linalg.lstsq(basis, direction, rcond=SAME)[0]
    rest -= basis @ np.linalg.lstsq(basis, rest, rcond=SAME)[0]  # once more: rounding
    if np.linalg.norm(rest) < NOTHING_LEFT:
        return None
    return unit(rest)


def random_directions(count: int, dims: int, seed: int) -> Floats:
    """Unit vectors (count, D), uniform on the sphere, pure in the arguments."""
    return unit(np.random.default_rng([seed, 0xD1CE]).standard_normal((count, dims)))


def spread(w: Floats, directions: Floats) -> Floats:
    """Standard deviation of samples w (N, D) along unit vectors (..., D), in units of w."""
    return np.std(np.asarray(w, np.float64) @ np.asarray(directions).T, axis=0)
