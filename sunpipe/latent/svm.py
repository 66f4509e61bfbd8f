"""Linear SVMs and regressions over latents, many at once, standardisation folded back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.latent.direction import Floats, unit
from sunpipe.latent.newton import TOLERANCE, Problems
from sunpipe.latent.solver import Design, check, interval, tube

REPLICATES = 1e-3  # tolerance of replicates: a cosine of 1 - 5e-7
BLOCK = 1 << 14  # rows that are standardised at once


def project(w: Floats, vectors: Floats) -> Floats:
    """Samples w (N, D) along vectors (K, D): float64 (N, K), in blocks of little memory."""
    found = np.empty((len(w), len(vectors)))
    for start in range(0, len(w), BLOCK):
        found[start : start + BLOCK] = np.asarray(w[start : start + BLOCK], np.float64) @ vectors.T
    return found


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
        return project(w, self.normals) + self.intercepts


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

    def narrow(self, w: Floats, rows: NDArray[np.int64], columns: NDArray[np.bool_]) -> Floats:
        """Standardised rows of the columns (of this scale), float32: in blocks of little memory."""
        found = np.empty((len(rows), len(self.mean)), np.float32)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            found[start : start + BLOCK] = self.apply(w[part][:, columns])
        return found

    def fold(self, coefficients: Floats, intercepts: Floats) -> Planes:
        """Planes in x, ``c . x + b = 0``, as `Planes` in w.

        ``c . (w - mean) / std + b = (c / std) . w + (b - (c / std) . mean)``,
        divided by the length of ``c / std``.
        """
        normals = coefficients / self.std
        if not normals.any(axis=1).all():
            raise DataError("nothing to learn: no dimension of the latents varies with a quantity")
        length = np.linalg.norm(normals, axis=1)
        return Planes(unit(normals), (intercepts - normals @ self.mean) / length)


def apart(labels: NDArray[np.generic], c: float) -> Problems:
    """Signed weights (T, N) as problems of the squared hinge."""
    low, high = interval(np.sign(labels).astype(np.int8))
    count = len(labels)
    return Problems(low, high, np.arange(count), np.abs(labels), np.full(count, c))


def near(targets: Floats, c: float, epsilon: float) -> Problems:
    """Targets (T, N), left out where undefined, as problems of the eps-insensitive loss."""
    low, high = tube(targets, epsilon)
    weights, count = np.isfinite(targets).astype(np.int8), len(targets)
    return Problems(low, high, np.arange(count), weights, np.full(count, c))


def solve_planes(
    w: Floats,
    problems: Problems,
    scale: Scale,
    solver: str = "newton",
    columns: NDArray[np.bool_] | None = None,
    base: Problems | None = None,
) -> Planes:
    """Solve problems over the standardised columns of w that may move, as planes in w.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    problems : Problems
    scale : Scale
        Of all D columns.
    solver : {"newton", "sklearn"}
        All problems in one batched solve, or one after the other by scikit-learn;
        they agree to rounding.
    columns : ndarray of bool, shape (D,), optional
        Columns that may move; normals are exactly 0 in the others.
    base : Problems, optional
        One problem for each row of targets: where the descent of its replicates,
        `problems`, begins.

    Raises
    ------
    DataError
        When a used value is not finite, a problem has one class or one target
        value only, or it has fewer samples than dimensions.
    """
    movable = np.ones(w.shape[1], bool) if columns is None else np.asarray(columns, bool)
    used = (problems.weights != 0).any(axis=0)
    if base is not None:
        used |= (base.weights != 0).any(axis=0)
    check(problems if base is None else base, int(movable.sum()))
    rows = np.flatnonzero(used)
    x = Scale(scale.mean[movable], scale.std[movable]).narrow(w, rows, movable)
    problems = problems.rows(rows)
    if solver == "sklearn":
        from sunpipe.latent.peers import solve_one_by_one

        v = solve_one_by_one(x, problems)
    else:
        design = Design(x)
        start = None if base is None else design.solve(base.rows(rows)).v[problems.of]
        v = design.solve(problems, start, TOLERANCE if start is None else REPLICATES).v
    coefficients = np.zeros((len(v), w.shape[1]))
    coefficients[:, movable] = v[:, :-1]
    return scale.fold(coefficients, v[:, -1])


def fit_svm(
    w: Floats,
    weights: NDArray[np.generic],
    c: float,
    scale: Scale,
    solver: str = "newton",
    columns: NDArray[np.bool_] | None = None,
) -> Planes:
    """Fit T linear SVMs to samples w.

    Each minimises ``(|v|^2 + b^2) / 2 + c sum_i |s_i| max(0, 1 - sign(s_i) (v . x_i + b))^2``
    over standardised x: the L2-regularised squared hinge of Fan et al. 2008
    (LIBLINEAR, eq. 1), whose intercept is regularised too; what LinearSVC solves.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    weights : ndarray, shape (T, N)
        s: sign is the class, magnitude the weight of the sample, 0 leaves it out.
    c : float
    scale, solver, columns
        See `solve_planes`.

    Returns
    -------
    Planes
    """
    return solve_planes(w, apart(weights, c), scale, solver, columns)


def fit_svr(
    w: Floats,
    targets: Floats,
    c: float,
    epsilon: float,
    scale: Scale,
    solver: str = "newton",
    columns: NDArray[np.bool_] | None = None,
) -> Planes:
    """Fit T linear support vector regressions to samples w.

    Each minimises ``(|v|^2 + b^2) / 2 + c sum_i max(0, |v . x_i + b - y_i| - epsilon)^2``
    over standardised x: the L2-regularised squared eps-insensitive loss of Ho &
    Lin 2012 (JMLR 13, 3323, eq. 5), intercept regularised; what LinearSVR solves.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    targets : ndarray, shape (T, N)
        y, such as the `sunpipe.latent.ridge.normal_scores` of a quantity; samples
        where it is NaN are left out.
    c, epsilon : float
        Weight of the loss, and the error that costs nothing, in units of y.
    scale, solver, columns
        See `solve_planes`.

    Returns
    -------
    Planes
        Scores are signed distances in w from where 0 is predicted.
    """
    return solve_planes(w, near(targets, c, epsilon), scale, solver, columns)


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
    for side in np.intersect1d((-1, 1), labels):
        rows = np.flatnonzero(labels == side)
        drawn = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=replicates)
        weights[:, rows] = side * drawn
    return weights
