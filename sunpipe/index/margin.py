"""When may an answer from a few inverted lists be trusted? Measured under filters.

The nearest list that was not read may hold a nearer vector. The ratio of its squared
distance to that of the last answer (`sunpipe.index.codes.Found.margin`) tells how
likely that is: large inside a tight cluster, near 1 when a filter has taken the
query's own cluster away, or when the query is like nothing in the archive. An answer
that came late in the order of codes says that later ones may be answers too: it
scores 0. Here the least score is found from which on answers reach the asked recall,
with rows left out at random and with whole neighbourhoods left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import Effort, find
from sunpipe.index.exact import exact
from sunpipe.index.lookup import efforts, score
from sunpipe.index.measure import Asked, asked_among, hits, some
from sunpipe.index.tune import depth

Floats32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
QUERIES = 256
SHARES = (0.5, 0.1, 0.03)  # of rows left in at random
SURE = 0.8  # of the allowed misses, kept in hand likewise
HARDER = 1.5  # times the comparisons, for filters that were not tried
GROUPS = (0.5, 0.1)  # of neighbourhoods left in
ANCHORS = 64
BLOCK = 65_536
SEED = 5


def neighbourhoods(vectors: Floats32, metric: str) -> NDArray[np.int64]:
    """The nearest of some random vectors, for each vector: groups of rows that lie together."""
    random = np.random.default_rng(SEED)
    centres = np.array(vectors[np.sort(random.choice(len(vectors), min(ANCHORS, len(vectors)),
                                                     replace=False))])  # fmt: skip
    nearest = [exact(centres, np.array(vectors[start : start + BLOCK]), 1, metric)[1][:, 0]
               for start in range(0, len(vectors), BLOCK)]  # fmt: skip
    return np.concatenate(nearest)


def filters(vectors: Floats32, metric: str) -> list[Bools]:
    """Rows left in: some at random, and whole neighbourhoods."""
    random = np.random.default_rng(SEED)
    found = [random.random(len(vectors)) < share for share in SHARES]
    group = neighbourhoods(vectors, metric)
    found += [(random.permutation(ANCHORS) < share * ANCHORS)[group] for share in GROUPS]
    return found


@dataclass(frozen=True)
class Filtered:
    """A filter and what its true answers are."""

    allowed: Bools
    count: int
    asked: Asked


def filtered(vectors: Floats32, asked: Asked, metric: str) -> list[Filtered]:
    """The tuning queries under every filter, answered exactly."""
    rows, queries = asked.rows[:QUERIES], np.ascontiguousarray(asked.queries[:QUERIES])
    found = []
    for allowed in filters(vectors, metric):
        places = np.flatnonzero(allowed)
        if len(places) > asked.k:
            _, truth = exact(vectors, queries, asked.k + 1, metric, places)
            true = asked_among(vectors, rows, queries, truth, metric)
            found.append(Filtered(allowed, len(places), true))
    return found


def hard_factor(index: Any, cases: list[Filtered], recall: float) -> int:
    """Exact comparisons per answer that suffice under every filter; 0 when none does.

    Codes tell near vectors apart better than far ones, so a query whose
    neighbourhood is left out needs more of them; such queries count alone.
    """
    most = 1
    for case in cases:
        away = ~case.allowed[case.asked.rows]
        asked = some(case.asked, away) if away.any() else case.asked
        factor, _ = depth(index, asked, index.nlist, recall, case.allowed)
        if factor is None:
            return 0
        most = max(most, factor)
    return math.ceil(HARDER * most)


def threshold(scores: NDArray[np.float64], share: NDArray[np.float64], recall: float) -> float:
    """The least score such that answers from it on reach the recall, together.

    >>> threshold(np.array([3.0, 2.0, 1.5, 0.9]), np.array([1.0, 1.0, 0.9, 0.2]), 0.95)
    1.5

    Where none does, one just above all of them.
    """
    order = np.argsort(-scores, kind="stable")
    mean = share[order].cumsum() / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(scores[order]) < 0, True)  # equal ones are trusted together
    good = np.flatnonzero((mean >= recall) & ends)
    return float(scores[order][good[-1]] if len(good) else np.nextafter(scores.max(), np.inf))


def trusted_from(
    index: Any, vectors: Floats32, cases: list[Filtered], metric: str, plain: Effort, recall: float
) -> float:
    """The score from which on answers are trusted, under every filter, at every effort."""
    least, goal = 1.0, recall + SURE * (1 - recall)
    for case in cases:
        asked = case.asked
        for effort in efforts(plain, index.nlist, start=True):
            found = find(index, vectors, asked.queries, asked.k + 1, metric, effort, case.allowed)
            share = hits(asked, found.values, found.rows, metric)
            if share.mean() < goal:
                least = max(least, threshold(score(found), share, goal))
    return least
