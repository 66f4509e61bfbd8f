"""Principal axes of the latents that may move: the metric of walks, and how far steps lead out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats

BLOCK_BYTES = 1 << 26  # of samples that are widened to float64 at a time
FLAT = 1e-12  # of the largest variance: less is rounding


def covariance(x: NDArray[np.floating]) -> Floats:
    """Covariance (M, M) of samples (N, M), in float64 without a copy of them all."""
    step = max(BLOCK_BYTES // (8 * x.shape[1]), 1)
    total, mean = np.zeros((x.shape[1], x.shape[1])), x.mean(axis=0, dtype=np.float64)
    for start in range(0, len(x), step):
        rest = x[start : start + step] - mean
        total += rest.T @ rest
    return total / (len(x) - 1)


def with_signs(vectors: Floats) -> Floats:
    """Columns of (M, K) turned so that the largest number of each is positive.

    An eigenvector is known but for its sign, which solvers choose as they like.
    """
    largest = np.abs(vectors).argmax(axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


def pad(vectors: Floats, movable: NDArray[np.bool_]) -> Floats:
    """Vectors (T, M) over the movable columns as (T, D), 0 in the others."""
    if movable.all():
        return vectors
    whole = np.zeros((len(vectors), len(movable)))
    whole[:, movable] = vectors
    return whole


class Axes(NamedTuple):
    """Principal axes of the movable columns (M of D).

    Attributes
    ----------
    variances : ndarray, shape (M,)
    vectors : ndarray, shape (M, M)
        A column each.
    movable : ndarray of bool, shape (D,)
    """

    variances: Floats
    vectors: Floats
    movable: NDArray[np.bool_]

    @classmethod
    def of(cls, x: NDArray[np.floating], movable: NDArray[np.bool_]) -> Axes:
        """Axes of samples (N, D), the narrowest first, of fixed sign (`with_signs`)."""
        values, vectors = np.linalg.eigh(covariance(x if movable.all() else x[:, movable]))
        return cls(np.maximum(values, 0.0), with_signs(vectors), movable)

    def root(self, isotropic: bool = False) -> Floats:
        """Symmetric root (D, D) of the covariance, or the identity; 0 where nothing moves."""
        if isotropic:
            return np.diag(self.movable.astype(np.float64))
        root = (self.vectors * np.sqrt(self.variances)) @ self.vectors.T
        return pad(pad(root, self.movable).T, self.movable)

    def sigma(self, direction: Floats) -> float:
        """Standard deviation of the samples along a unit vector (D,)."""
        return float(np.sqrt(self.variances @ (self.vectors.T @ direction[self.movable]) ** 2))

    def effort(self, direction: Floats) -> float:
        """Mahalanobis length of one standard deviation along a unit vector (D,).

        1 for a direction in which the latents vary as much as they can; larger means
        that a step leaves the cloud of latents that the generator was trained on.
        """
        share = (self.vectors.T @ direction[self.movable]) ** 2
        wide = self.variances > FLAT * self.variances.max()
        return float(np.sqrt((self.variances @ share) * np.sum(share[wide] / self.variances[wide])))
