"""Refits on resampled training samples: all quantities and replicates in one batched solve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.newton import Problems
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.ridge import fit_ridge, normal_scores
from sunpipe.latent.svm import Planes, apart, bootstrap_weights, near, solve_planes
from sunpipe.shards.order import generator_seed


def learned_from(p: Prepared, name: str, learner: str) -> Problems:
    """One quantity as the problem that a learner solves, over the training samples.

    Parameters
    ----------
    p : Prepared
    name : str
    learner : {"svm", "svr", "ridge"}
        The extremes apart; normal scores of the ranks; or the standardised values
        by least squares, with the penalty that generalised cross-validation chose.
    """
    settings = p.settings
    if learner == "svm":
        return apart(np.where(p.test, 0, p.extreme[name])[None], settings.svm_c)
    values = np.where(p.test, np.nan, p.samples.column(name))
    if learner == "svr":
        scores = np.where(p.test, np.nan, normal_scores(p.samples.column(name)))
        return near(scores[None], settings.svr_c, settings.svr_epsilon)
    ridge = fit_ridge(p.x, p.samples.column(name), p.test, p.scale, p.axes.movable)
    known = values[np.isfinite(values)]
    return near(((values - known.mean()) / known.std())[None], 0.5 / ridge.shrinkage, 0.0)


def joined(problems: list[Problems]) -> Problems:
    """Problems over the same samples as one batch."""
    starts = np.cumsum([0, *[len(each.low) for each in problems]])
    return Problems(
        np.concatenate([each.low for each in problems]),
        np.concatenate([each.high for each in problems]),
        np.concatenate([each.of + start for each, start in zip(problems, starts, strict=False)]),
        np.concatenate([each.weights for each in problems]),
        np.concatenate([each.c for each in problems]),
    )


def drawn(p: Prepared, name: str, base: Problems) -> NDArray[np.int16]:
    """How often each training sample is drawn: (replicates, N), pure in the seed and the name.

    Of two classes each is drawn with its own size.
    """
    seed = generator_seed(p.seed, 0, 0, f"bootstrap {name}")
    classes = np.isinf(base.high[0]) | np.isinf(base.low[0])
    marks = np.where(classes & np.isinf(base.low[0]), -1, 1)
    marks = np.where(base.weights[0] != 0, marks, 0).astype(np.int8)
    return np.abs(bootstrap_weights(marks, p.settings.bootstrap, seed)).astype(np.int16)


def bootstrap_planes(p: Prepared, names: list[str]) -> dict[str, Planes]:
    """Refits of the walked learner, ``settings.bootstrap`` for each quantity.

    All are solved in one batch, each from the solution on the undrawn samples. A
    quantity's draws depend on the seed and its name alone, so its refits do not
    depend on what else is in the batch, but for rounding.

    Parameters
    ----------
    p : Prepared
    names : list of str
        Of ``p.names``.

    Returns
    -------
    dict
        Quantity to its refits; empty when ``settings.bootstrap`` is 0.
    """
    count = p.settings.bootstrap
    if not count or not names:
        return {}
    learner = p.settings.learner
    bases = [learned_from(p, name, learner) for name in names]
    base = joined(bases)
    of = np.repeat(np.arange(len(names)), count)
    weights = np.concatenate(
        [drawn(p, name, each) for name, each in zip(names, bases, strict=True)]
    )
    replicates = Problems(base.low, base.high, of, weights, base.c[of])
    planes = solve_planes(p.x, replicates, p.scale, p.settings.solver, p.axes.movable, base)
    return {
        name: Planes(planes.normals[of == at], planes.intercepts[of == at])
        for at, name in enumerate(names)
    }
