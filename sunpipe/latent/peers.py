"""The problems of `sunpipe.latent.newton` one after the other by scikit-learn."""

from __future__ import annotations

import numpy as np

from sunpipe.latent.direction import Floats
from sunpipe.latent.newton import Problems

TOLERANCE, ROUNDS = 1e-6, 10_000


def solve_one_by_one(x: Floats, problems: Problems) -> Floats:
    """Solve with LinearSVC and LinearSVR (liblinear, primal): the same objectives.

    Parameters
    ----------
    x : ndarray, shape (N, D)
    problems : Problems

    Returns
    -------
    ndarray, shape (T, D + 1)
        Coefficients, the intercept last.
    """
    from sklearn.svm import LinearSVC, LinearSVR

    wide, found = np.asarray(x, np.float64), np.empty((len(problems.of), x.shape[1] + 1))
    for number, target in enumerate(problems.of):
        weights = problems.weights[number]
        used, c = weights != 0, float(problems.c[number])
        low, high = (each[target, used].astype(np.float64) for each in problems[:2])
        if np.isinf(high).any():
            y = np.where(np.isinf(high), 1.0, -1.0)
            model = LinearSVC(loss="squared_hinge", dual=False, C=c, tol=TOLERANCE, max_iter=ROUNDS)
        else:
            y = (low + high) / 2
            model = LinearSVR(
                loss="squared_epsilon_insensitive", dual=False, C=c, tol=TOLERANCE,
                max_iter=ROUNDS, epsilon=float(np.median(high - low) / 2),
            )  # fmt: skip
        model.fit(wide[used], y, sample_weight=weights[used].astype(np.float64))
        found[number, :-1] = np.ravel(model.coef_)
        found[number, -1] = np.ravel(model.intercept_)[0]
    return found
