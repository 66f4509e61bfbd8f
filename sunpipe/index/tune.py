"""The cheapest search of a code index that finds the wanted share of true neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import Effort, Found, candidates, find
from sunpipe.index.measure import Asked, hits, per_second, without_self

Floats32 = NDArray[np.float32]
DEEPEST = 256  # exact comparisons per answer, at most
SPARE = 0.3  # of the allowed misses, kept in hand: another set of queries will judge
SLOWER = 0.7  # more lists are tried until speed has fallen to this share of the best


@dataclass(frozen=True)
class Tuned:
    """What a search needs, and what it gave on the tuning queries.

    Attributes
    ----------
    effort : Effort
        For the `AT` nearest of all vectors.
    recall, qps : float
    """

    effort: Effort
    recall: float
    qps: float


def wanted(recall: float) -> float:
    """Recall to tune for, so that other queries have the asked one."""
    return recall + SPARE * (1 - recall)


def by_depth(asked: Asked, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean recall when the first 1, 2, ... candidates are compared exactly."""
    mine = without_self(asked.rows, rows)[0]
    found = np.zeros(mine.shape, bool)
    for column in asked.truth.T:
        found |= mine == column[:, None]
    shares: NDArray[np.float64] = found.cumsum(axis=1).mean(axis=0) / asked.k
    return shares


def probes(lists: int) -> Iterator[int]:
    """Numbers of lists worth trying: 1, 2, 4 ... all."""
    number = 1
    while number < lists:
        yield number
        number *= 2
    yield lists


def depth(
    index: Any, asked: Asked, nprobe: int, recall: float, allowed: NDArray[np.bool_] | None = None
) -> tuple[int | None, float]:
    """Exact comparisons per answer that reach `recall`, or None; and the most that codes find."""
    number = min(index.ntotal, asked.k * DEEPEST + 1)
    shares = by_depth(asked, candidates(index, asked.queries, number, nprobe, allowed)[0])
    best = float(shares[-1]) if len(shares) else 1.0
    if best < recall:
        return None, best
    return math.ceil((int(np.argmax(shares >= recall)) + 2) / asked.k), best


def tune(
    index: Any, vectors: Floats32, asked: Asked, metric: str, recall: float
) -> tuple[Tuned | None, float]:
    """Find lists and comparisons that reach a recall in the least time.

    Returns
    -------
    Tuned or None
        None when no search by codes reaches it.
    float
        The best recall seen.
    """
    goal, best, most = wanted(recall), None, 0.0
    for nprobe in probes(index.nlist):
        factor, seen = depth(index, asked, nprobe, goal)
        most = max(most, seen)
        if factor is None:
            continue
        effort = Effort(nprobe, factor)
        qps = per_second(partial(_search, index, vectors, asked, metric, effort), len(asked.rows))
        if best is None or qps > best[1]:
            best = (effort, qps)
        elif qps < SLOWER * best[1]:
            break
    if best is None:
        return None, most
    effort, qps = best
    found = _search(index, vectors, asked, metric, effort)
    share = float(hits(asked, found.values, found.rows, metric).mean())
    return Tuned(effort, share, qps), most


def _search(index: Any, vectors: Floats32, asked: Asked, metric: str, effort: Effort) -> Found:
    return find(index, vectors, asked.queries, asked.k + 1, metric, effort)
