"""Ridge regression on the continuous value: the control a median split must beat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
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
    shrinkage : float
        That product: weight of the coefficients' squared length beside the sum of
        squared errors of the standardised target.
    """

    plane: Planes
    r2: float
    penalty: float
    shrinkage: float


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


def fit_ridges(
    w: Floats,
    values: Floats,
    test: NDArray[np.bool_],
    scale: Scale,
    columns: NDArray[np.bool_] | None = None,
) -> list[Ridge]:
    """Fit ``value = v . x + b`` on the training samples, for targets defined in the same samples.

    The penalty is chosen by generalised cross-validation (Golub, Heath & Wahba
    1979, Technometrics 21, 215, eq. 1.4), from one eigendecomposition that all
    the targets share; residuals are summed in its basis.

    Parameters
    ----------
    w : ndarray, shape (N, D)
    values : ndarray, shape (K, N)
        Samples where the first is not finite are left out of all.
    test : ndarray of bool, shape (N,)
        Held-out rows.
    scale : Scale
    columns : ndarray of bool, shape (D,), optional
        Columns that may move; normals are exactly 0 in the others.
    """
    movable = np.ones(w.shape[1], bool) if columns is None else np.asarray(columns, bool)
    part = Scale(scale.mean[movable], scale.std[movable])
    defined = np.isfinite(values[0])
    train, judge = np.flatnonzero(defined & ~test), np.flatnonzero(defined & test)
    x = part.narrow(w, train, movable).astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    eigenvalues, vectors = np.linalg.eigh(x.T @ x)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    held = part.narrow(w, judge, movable) - mean
    return [
        _ridge(row[train], row[judge], x, held, mean, eigenvalues, vectors, scale, movable)
        for row in np.asarray(values, np.float64)
    ]


def _ridge(
    known: Floats,
    truth: Floats,
    x: Floats,
    held: Floats,
    mean: Floats,
    eigenvalues: Floats,
    vectors: Floats,
    scale: Scale,
    movable: NDArray[np.bool_],
) -> Ridge:
    """One target of `fit_ridges`: centred training samples x, held-out ones less their mean."""
    centre, size = known.mean(), known.std()
    if not size > 0:
        raise DataError(f"nothing to learn: one value only among {len(known)} samples")
    y = (known - centre) / size
    projected = vectors.T @ (x.T @ y)
    best, chosen = np.inf, 0.0
    for share in PENALTIES:
        shrink = 1.0 / (eigenvalues + share * eigenvalues.mean())
        freedom = len(y) - 1 - float(np.sum(eigenvalues * shrink))
        fitted = shrink * projected
        left = float(y @ y - 2 * fitted @ projected + eigenvalues @ fitted**2)
        criterion = len(y) * max(left, 0.0) / max(freedom, 1e-9) ** 2
        if criterion < best:
            best, chosen = criterion, float(share)
    shrinkage = chosen * float(eigenvalues.mean())
    coefficients = vectors @ (projected / (eigenvalues + shrinkage))
    whole = np.zeros((1, len(movable)))
    whole[0, movable] = coefficients
    plane = scale.fold(whole, np.array([-coefficients @ mean]))
    truth = (truth - centre) / size
    error = truth - held @ coefficients
    total = np.sum((truth - truth.mean()) ** 2) if len(truth) else 0.0
    r2 = float(1 - np.sum(error**2) / total) if total > 0 else 0.0
    return Ridge(plane, r2, chosen, shrinkage)


def fit_ridge(
    w: Floats,
    values: Floats,
    test: NDArray[np.bool_],
    scale: Scale,
    columns: NDArray[np.bool_] | None = None,
) -> Ridge:
    """One target (N,) of `fit_ridges`."""
    return fit_ridges(w, np.asarray(values)[None], test, scale, columns)[0]
