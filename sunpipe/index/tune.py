"""The cheapest search of a code index that finds the wanted share of true neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import Effort, candidates, find, next_list, squared
from sunpipe.index.measure import Asked, hits, per_second, without_self

Floats32 = NDArray[np.float32]
DEEPEST = 256  # exact comparisons per answer, at most
SPARE = 0.3  # of the allowed misses, kept in hand: another set of queries will judge
SLOWER = 0.7  # more lists are tried until speed has fallen to this share of the best
NEVER = 1e30  # a margin that no query reaches (JSON knows no infinity)


@dataclass(frozen=True)
class Tuned:
    """What a search needs, and what it gave on the tuning queries.

    Attributes
    ----------
    effort : Effort
        For the `AT` nearest of all vectors.
    full : Effort
        Every list is read: for filters that leave out what lies near.
    margin : float
        Least ratio of the squared distance to the nearest list not read to that of
        the farthest answer, for which an answer is taken for complete.
    recall, qps : float
    """

    effort: Effort
    full: Effort
    margin: float
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


def depth(index: Any, asked: Asked, nprobe: int, recall: float) -> tuple[int | None, float]:
    """Exact comparisons per answer that reach `recall`, or None; and the most that codes find."""
    number = min(index.ntotal, asked.k * DEEPEST + 1)
    shares = by_depth(asked, candidates(index, asked.queries, number, nprobe, None))
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
        qps = per_second(
            lambda e=effort: _search(index, vectors, asked, metric, e), len(asked.rows)
        )
        if best is None or qps > best[1]:
            best = (effort, qps)
        elif qps < SLOWER * best[1]:
            break
    if best is None:
        return None, most
    effort, qps = best
    full, _ = depth(index, asked, index.nlist, goal)
    share = float(hits(asked, _search(index, vectors, asked, metric, effort), metric).mean())
    whole = Effort(index.nlist, max(effort.factor, full or DEEPEST))
    margin = least_margin(index, vectors, asked, metric, effort, recall)
    return Tuned(effort, whole, margin, share, qps), most


def _search(index: Any, vectors: Floats32, asked: Asked, metric: str, effort: Effort) -> Any:
    return find(index, vectors, asked.queries, asked.k + 1, metric, effort)


def margins(
    index: Any, queries: Floats32, values: Floats32, nprobe: int, metric: str
) -> NDArray[np.float64]:
    """How far the nearest unread list is, in squared distances of the farthest answer."""
    beyond = next_list(index, queries, nprobe, metric)
    last = np.maximum(squared(values[:, -1], metric), 1e-12)
    return np.where(np.isfinite(last), beyond / last, 0.0)


def least_margin(
    index: Any, vectors: Floats32, asked: Asked, metric: str, effort: Effort, recall: float
) -> float:
    """The margin from which on answers are complete, from the tuning queries.

    Answers with fewer lists than needed are seen too, since these are what a filter
    makes of a query. It is at least 1: the nearest list that was not read is then
    farther away than any answer.
    """
    if index.nlist == 1:
        return 1.0
    seen, shares = [], []
    for nprobe in probes(index.nlist):
        if nprobe > 4 * effort.nprobe or nprobe >= index.nlist:
            break
        answer = _search(index, vectors, asked, metric, Effort(nprobe, effort.factor))
        seen.append(margins(index, asked.queries, answer[0], nprobe, metric))
        shares.append(hits(asked, answer, metric))
    margin, share = np.concatenate(seen), np.concatenate(shares)
    order = np.argsort(-margin, kind="stable")
    mean = share[order].cumsum() / np.arange(1, len(order) + 1)
    good = np.flatnonzero(mean >= recall)
    if not len(good):
        return NEVER
    return float(max(1.0, margin[order][good[-1]]))
