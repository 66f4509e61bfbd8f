"""Ridge regression on the continuous value: the control a median split must beat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sunpipe.latent.direction import Floats
from sunpipe.latent.svm import Planes, Scale

PENALTIES = np.logspace(-6, 3, 37)  # of the mean eigenvalue of the Gram matrix


class Ridge(NamedTuple):
    """A ridge regression as a plane through the training mean, and how well it predicts.

    Attributes
    ----------
    plane : Planes
        One plane: its normal is the direction, positive where the quantity is
        above its mean over the training samples.
    r2 : float
        Share of the held-out variance that is explained; negative when the mean
        would predict better.
    penalty : float
        Chosen multiple of the mean eigenvalue of the Gram matrix.
    """

    plane: Planes
    r2: float
    penalty: float


def normal_scores(values: Floats) -> Floats:
    """Values replaced by the normal quantiles of their ranks; undefined stay NaN.

    The control for quantities with heavy tails, where a few patches would rule
    a least-squares fit of the values themselves.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores = np.full(len(values), np.nan)
    defined = np.isfinite(values)
    scores[defined] = ndtri((rankdata(values[defined]) - 0.5) / np.count_nonzero(defined))
    return scores


def fit_ridge(w: Floats, values: Floats, test: np.ndarray, scale: Scale) -> Ridge:
    """Fit ``value = v . x + b`` on the training samples.

    The penalty is chosen by generalised cross-validation (Golub, Heath & Wahba
    1979, Technometrics 21, 215, eq. 1.4), from one eigendecomposition.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    values : ndarray, shape (N,)
        Rows without a finite value are left out.
    test : ndarray of bool, shape (N,)
        Held-out rows.
    scale : Scale
    """
    defined = np.isfinite(values)
    train, judge = defined & ~test, defined & test
    x, centre = scale.apply(w[train]), values[train].mean()
    size = values[train].std()
    y, mean = (values[train] - centre) / size, x.mean(axis=0)
    x = x - mean
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    projected = vectors.T @ (x.T @ y)
    best, coefficients, penalty = np.inf, projected, 0.0
    for share in PENALTIES:
        shrink = 1.0 / (eigenvalues + share * eigenvalues.mean())
        solution = vectors @ (shrink * projected)
        freedom = len(y) - 1 - float(np.sum(eigenvalues * shrink))
        criterion = len(y) * float(np.sum((y - x @ solution) ** 2)) / max(freedom, 1e-9) ** 2
        if criterion < best:
            best, coefficients, penalty = criterion, solution, float(share)
    plane = scale.fold(coefficients[None], np.array([-coefficients @ mean]))
    truth = (values[judge] - centre) / size
    error = truth - (scale.apply(w[judge]) - mean) @ coefficients
    total = np.sum((truth - truth.mean()) ** 2)
    return Ridge(plane, float(1 - np.sum(error**2) / total) if total > 0 else 0.0, penalty)
