"""Scores of one retriever: is the region found again, and has the answer the same physics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.bootstrap import correlation, mean
from sunpipe.evaluate.retrieval_nearest import Nearest

Floats = NDArray[np.float64]
SIGNED = 0.05  # share of each sign from which on the magnitude is looked at too


def magnitudes(values: Floats, names: list[str]) -> tuple[Floats, list[str]]:
    """Add ``|X|`` beside every quantity X that is often above and often below 0.

    An encoder that does not feel mirrors or polarity cannot know such a sign; whether
    it finds the magnitude is another question.

    Parameters
    ----------
    values : ndarray (N, Q)
        Of the archive.
    names : list of str

    Returns
    -------
    values : ndarray (N, Q + M)
    names : list of str
        The first Q as given.
    """
    with np.errstate(invalid="ignore"):
        up, down = np.mean(values > 0, axis=0), np.mean(values < 0, axis=0)
    both = np.flatnonzero((up > SIGNED) & (down > SIGNED))
    return (
        np.concatenate([values, np.abs(values[:, both])], axis=1),
        [*names, *(f"|{names[place]}|" for place in both)],
    )


def like(values: Floats, names: list[str], wanted: list[str]) -> Floats:
    """The columns `wanted` (as `magnitudes` named them) of other values (M, Q)."""
    columns = []
    for name in wanted:
        column = values[:, names.index(name.strip("|"))]
        columns.append(np.abs(column) if name.startswith("|") else column)
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))


def same_region(found: Nearest, k: int, replicates: int, seed: int) -> dict[str, Any]:
    """How well queries find their own HARP at another time among all HARPs.

    Every HARP stands where its best tile does. Queries whose HARP has no other time
    are left out; ties share their ranks.

    Returns
    -------
    dict
        ``recall_1`` and ``recall_<k>``, ``mean_rank``, ``reciprocal_rank`` (mean of 1 /
        rank): value, low, high, n, clusters each.
    """
    rank = found.own_rank()
    clusters = found.asked.group
    known = np.isfinite(rank)

    def score(values: Floats) -> dict[str, Any]:
        return mean(np.where(known, values, np.nan), clusters, replicates, seed)

    recalls = {f"recall_{limit}": score((rank <= limit).astype(np.float64))
               for limit in sorted({1, k})}  # fmt: skip
    with np.errstate(invalid="ignore"):
        return {**recalls, "mean_rank": score(rank), "reciprocal_rank": score(1 / rank)}


def physics(
    found: Nearest, queries: Floats, archive: Floats, names: list[str], other_group: bool,
    clusters: NDArray[Any], replicates: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Correlation of each quantity between query and best match.

    Parameters
    ----------
    found : Nearest
    queries, archive : ndarray (Q, P) and (N, P)
        Measured quantities of both sides.
    names : list of str
    other_group : bool
        Leave the query's HARP out altogether.
    clusters : ndarray (Q,)
        What the bootstrap draws.
    """
    _, place = found.match(other_group)
    matched = np.where(place[:, None] >= 0, archive[np.maximum(place, 0)], np.nan)
    return {
        name: correlation(queries[:, column], matched[:, column], clusters, replicates, seed)
        for column, name in enumerate(names)
    }


def physics_shuffled(
    found: Nearest, queries: Floats, archive: Floats, names: list[str], seed: int, times: int = 100
) -> dict[str, Any]:
    """The same matches dealt to the queries at random: mean and 95th percentile of the size.

    What a retriever would get that likes some tiles better than others but does not
    look at the query.
    """
    from sunpipe.embed.correlation import correlation as dealt

    _, place = found.match(False)
    matched = np.where(place[:, None] >= 0, archive[np.maximum(place, 0)], np.nan)
    keys = ("pearson_shuffled", "pearson_shuffled_p95", "spearman_shuffled",
            "spearman_shuffled_p95")  # fmt: skip
    rows = {}
    for column, name in enumerate(names):
        row = dealt(queries[:, column], matched[:, column], times, seed)
        rows[name] = {key: row[key] for key in keys}
    return rows
