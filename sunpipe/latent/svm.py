"""Linear SVMs over latents, many at once, with the standardisation folded back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.direction import Floats, unit


class Planes(NamedTuple):
    """Separating hyperplanes ``normal . w + intercept = 0`` in w.

    Attributes
    ----------
    normals : ndarray, shape (T, D)
        Unit vectors; a step along one raises the score of the class +1.
    intercepts : ndarray, shape (T,)
        So that the score is the signed distance to the plane, in units of w.
    """

    normals: Floats
    intercepts: Floats

    def score(self, w: Floats) -> Floats:
        """Signed distances (N, T) of samples w (N, D)."""
        return np.asarray(w, np.float64) @ self.normals.T + self.intercepts


class Scale(NamedTuple):
    """Standardisation ``x = (w - mean) / std`` of every dimension."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, w: Floats) -> Scale:
        """Mean and standard deviation of samples w (N, D); a constant dimension keeps scale 1."""
        wide = np.asarray(w, np.float64)
        std = wide.std(axis=0)
        return cls(wide.mean(axis=0), np.where(std > 0, std, 1.0))

    def apply(self, w: Floats) -> Floats:
        """Standardised samples, float64 (N, D)."""
        return (np.asarray(w, np.float64) - self.mean) / self.std

    def fold(self, coefficients: Floats, intercepts: Floats) -> Planes:
        """Planes in x, ``c . x + b = 0``, as `Planes` in w.

        ``c . (w - mean) / std + b = (c / std) . w + (b - (c / std) . mean)``,
        divided by the length of ``c / std``.
        """
        normals = coefficients / self.std
        length = np.linalg.norm(normals, axis=1)
        return Planes(unit(normals), (intercepts - normals @ self.mean) / length)


def linear_svc(x: Floats, weights: Floats, c: float) -> tuple[Floats, Floats]:
    """Solve each SVM with scikit-learn's LinearSVC (liblinear, primal).

    Parameters
    ----------
    x : ndarray, shape (N, D)
    weights : ndarray, shape (T, N)
        Sign is the class, magnitude the weight of the sample, 0 leaves it out.
    c : float
        Weight of the loss against the length of the coefficients.

    Returns
    -------
    coefficients (T, D), intercepts (T,)
    """
    from sklearn.svm import LinearSVC

    coefficients, intercepts = np.empty((len(weights), x.shape[1])), np.empty(len(weights))
    for number, row in enumerate(weights):
        used = row != 0
        model = LinearSVC(loss="squared_hinge", dual=False, C=c, tol=1e-6, max_iter=10_000)
        model.fit(x[used], np.sign(row[used]), sample_weight=np.abs(row[used]))
        coefficients[number], intercepts[number] = model.coef_[0], model.intercept_[0]
    return coefficients, intercepts


def fit_svm(w: Floats, weights: Floats, c: float, scale: Scale, solver: str = "newton") -> Planes:
    """Fit T linear SVMs to samples w.

    Each minimises ``(|v|^2 + b^2) / 2 + c sum_i |s_i| max(0, 1 - sign(s_i) (v . x_i + b))^2``
    over standardised x: the L2-regularised squared hinge of Fan et al. 2008
    (LIBLINEAR, eq. 1), whose intercept is regularised too.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    weights : ndarray, shape (T, N)
        s: sign is the class, magnitude the weight of the sample, 0 leaves it out.
    c : float
    scale : Scale
    solver : {"newton", "sklearn"}
        All problems in one batched Newton solve, or one after the other by
        scikit-learn's LinearSVC; they agree to rounding.

    Returns
    -------
    Planes
    """
    from sunpipe.latent.newton import newton_svc

    solve = {"newton": newton_svc, "sklearn": linear_svc}[solver]
    coefficients, intercepts = solve(scale.apply(w), np.asarray(weights, np.float64), c)
    return scale.fold(coefficients, intercepts)


def accuracy(score: Floats, labels: NDArray[np.int8]) -> float | None:
    """Share of the labelled samples on the right side of a plane; None when there are none.

    Parameters
    ----------
    score : ndarray, shape (N,)
        Signed distance to the plane.
    labels : ndarray of int8, shape (N,)
        +1, -1, or 0 for samples that do not count.
    """
    counts = labels != 0
    if not counts.any():
        return None
    return float(np.mean((score[counts] > 0) == (labels[counts] > 0)))


def bootstrap_weights(labels: NDArray[np.int8], replicates: int, seed: int) -> Floats:
    """Labels times how often each sample was drawn: (R, N), each class drawn with its size."""
    random = np.random.default_rng([seed, 0xB007])
    weights = np.zeros((replicates, len(labels)))
    for side in (-1, 1):
        rows = np.flatnonzero(labels == side)
        drawn = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=replicates)
        weights[:, rows] = side * drawn
    return weights
