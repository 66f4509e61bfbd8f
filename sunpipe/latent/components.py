"""Unsupervised directions: principal components of the latents, and what they mean.

GANSpace (Haerkoenen et al. 2020, arXiv:2004.02546, section 2.2) takes the
principal components of w as candidate controls and leaves their meaning to the
eye. Here it is read from the measured quantities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.latent.axes import pad
from sunpipe.latent.direction import Floats
from sunpipe.latent.prepare import Prepared
from sunpipe.latent.ranks import centred, centred_ranks
from sunpipe.latent.svm import project
from sunpipe.shards.order import generator_seed

PERMUTATIONS = 200
LEVEL = 0.95


def component_name(number: int) -> str:
    """Key of component `number` (from 0) in the published files."""
    return f"PC{number + 1}"


def component_vectors(p: Prepared) -> Floats:
    """The first ``settings.components`` principal components, unit vectors (K, D).

    Exact: eigenvectors of the covariance of the columns that may move, largest
    variance first, as many as vary at all. The largest number of each is positive.
    """
    varies = int(np.count_nonzero(p.axes.variances > 1e-9 * p.axes.variances.max(initial=0.0)))
    count = min(p.settings.components, varies)
    vectors = pad(p.axes.vectors[:, ::-1][:, :count].T, p.axes.movable)
    largest = np.abs(vectors).argmax(axis=1)
    return vectors * np.sign(vectors[np.arange(count), largest])[:, None]


def chance(ranks: Floats, columns: list[tuple[np.ndarray, Floats]], seed: int) -> float | None:
    """The largest |Spearman| that shuffled samples exceed in 5 % of the permutations.

    Largest over all components (ranks, N x K) and quantities (its rows, its ranks):
    one level for the whole table, so that it holds for its best entry too.
    """
    random = np.random.default_rng(generator_seed(seed, 0, 0, "components"))
    found = []
    for _ in range(PERMUTATIONS if columns and ranks.size else 0):
        shuffled = ranks[random.permutation(len(ranks))]
        found.append(max(float(np.abs(centred(shuffled[rows]).T @ column).max())
                         for rows, column in columns))  # fmt: skip
    return float(np.quantile(found, LEVEL)) if found else None


def components(p: Prepared) -> list[dict[str, Any]]:
    """What each principal component is, JSON-able; all measured quantities are correlated.

    Returns
    -------
    list of dict
        ``name``; ``share`` of the variance and ``sigma`` along it; ``quantities``: name
        to ``pearson`` and ``spearman`` with the position along it, over the samples with
        a value; ``chance``: the level that 5 % of shuffled tables exceed in their largest
        |Spearman|; ``reads``: the quantity of the largest |Spearman| above it, or None.
    """
    vectors = component_vectors(p)
    if not len(vectors):
        return []
    position = project(p.x, vectors)
    quantities, columns = [], []
    pearsons, spearmans = [], []
    for name in p.samples.names:
        values = np.asarray(p.samples.column(name), np.float64)
        rows = np.flatnonzero(np.isfinite(values))
        if len(rows) < 3 or np.ptp(values[rows]) == 0:
            continue
        ranks = centred_ranks(values[rows])
        quantities.append(name)
        columns.append((rows, ranks))
        pearsons.append(centred(position[rows]).T @ centred(values[rows]))
        spearmans.append(centred_ranks(position[rows]).T @ ranks)
    level = chance(centred_ranks(position), columns, p.seed)
    total, table = float(p.axes.variances.sum()), []
    for number, vector in enumerate(vectors):
        read = {
            name: {"pearson": float(pearsons[at][number]), "spearman": float(spearmans[at][number])}
            for at, name in enumerate(quantities)
        }
        best = max(read, key=lambda name: abs(read[name]["spearman"]), default=None)
        if best is not None and level is not None and abs(read[best]["spearman"]) <= level:
            best = None
        sigma = p.axes.sigma(vector)
        table.append({
            "name": component_name(number), "share": sigma**2 / total, "sigma": sigma,
            "quantities": read, "chance": level, "reads": best,
        })  # fmt: skip
    return table
