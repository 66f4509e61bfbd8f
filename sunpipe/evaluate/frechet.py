"""Distances of two sets of feature vectors: of their Gaussians, and by a kernel. All float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AT_ONCE = 1024  # rows of the kernel's matrix that are held


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and unbiased covariance (d, d)."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, features: NDArray[Any]) -> Gaussian:
        """Fit to (N, d), N at least 2."""
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or len(x) < 2:
            raise ValueError(f"a Gaussian needs (N, d) with N of 2 or more, not {x.shape}")
        mean = x.mean(axis=0)
        centred = x - mean
        return cls(mean, centred.T @ centred / (len(x) - 1))


def _root(matrix: Floats) -> Floats:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_distance(one: Gaussian, two: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)`` (Dowson and Landau
    1982, eq. 4). The product is symmetric and positive semi-definite, so the
    trace of its root is the sum of the roots of its eigenvalues: real, and
    defined for singular covariances (fewer images than features), where the
    matrix root of ``C1 C2`` fails. No shrinkage: estimated from N images the
    distance is too large by about d / N relative to the trace, and distances
    are comparable at equal N only.
    """
    if one.mean.shape != two.mean.shape:
        raise ValueError(f"features of {one.mean.shape} and {two.mean.shape} numbers")
    root = _root(one.covariance)
    product = root @ two.covariance @ root
    values = np.linalg.eigvalsh((product + product.T) / 2)
    cross = np.sqrt(np.maximum(values, 0)).sum()
    moved = np.square(one.mean - two.mean).sum()
    distance = moved + np.trace(one.covariance) + np.trace(two.covariance) - 2 * cross
    return float(max(distance, 0.0))


def _kernel_sum(x: Floats, y: Floats) -> float:
    """Sum of ``(x.y / d + 1)^3`` over all pairs."""
    total = 0.0
    for start in range(0, len(x), AT_ONCE):
        total += float(((x[start : start + AT_ONCE] @ y.T / x.shape[1] + 1) ** 3).sum())
    return total


def kernel_distance(one: NDArray[Any], two: NDArray[Any]) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x.y / d + 1)^3``.

    KID (arXiv:1801.01401, eq. 4 and section 4) over all pairs, which is what its
    mean over random subsets converges to. Its expectation is 0 for equal
    distributions at any N, so it may come out below 0.

    Parameters
    ----------
    one, two : ndarray, (N, d) and (M, d)
        N and M of at least 2.
    """
    x, y = np.asarray(one, np.float64), np.asarray(two, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"a kernel distance needs (N, d) and (M, d), not {x.shape} and {y.shape}")

    def within(a: Floats) -> float:
        diagonal = float(((np.square(a).sum(axis=1) / a.shape[1] + 1) ** 3).sum())
        return (_kernel_sum(a, a) - diagonal) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))
