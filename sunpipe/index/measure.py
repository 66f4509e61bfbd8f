"""Recall and speed of an index, measured against exact search on its own vectors.

Queries are rows of the archive, each left out of its own answer; they are also
kept out of the sample that the index learns from. One set tunes, the other judges.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import compare
from sunpipe.index.exact import exact

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
AT = 10  # neighbours that must be found
QUERIES = 512  # of each set
SEED = 20240
REPEATS = 4  # at least, and until
SPENT_S = 0.3  # of processor time are spent: a busy machine needs many short ones
LONG_S = 2.0  # of processor time are enough for any
TIE = 1e-6  # of the largest squared length: twins count as one another


@dataclass(frozen=True)
class Asked:
    """Queries with their true neighbours.

    Attributes
    ----------
    rows : int64 ndarray (Q,)
        Rows of the index that ask.
    queries : float32 ndarray (Q, dim)
    truth : int64 ndarray (Q, k)
        Their exact neighbours, themselves left out.
    worst : float32 ndarray (Q,)
        Exact value of the last of them.
    seconds : float
        What the exact search took, per query.
    """

    rows: Ints
    queries: Floats32
    truth: Ints
    worst: Floats32
    seconds: float

    @property
    def k(self) -> int:
        """Neighbours wanted of each query."""
        return int(self.truth.shape[1])


def held_out(count: int) -> tuple[Ints, Ints]:
    """Rows of the tuning and of the judging queries: at most `QUERIES` each, chosen by `SEED`."""
    number = min(QUERIES, max(1, count // 4))
    chosen = np.random.default_rng(SEED).permutation(count)[: 2 * number]
    if len(chosen) < 2:
        return chosen, chosen
    half = len(chosen) // 2
    return np.sort(chosen[:half]), np.sort(chosen[half:])


def without_self(rows: Ints, found: Ints, *others: NDArray[Any]) -> list[NDArray[Any]]:
    """Drop each query's own row from its answer, or the last one when it is not there."""
    mine = found == rows[:, None]
    mine[:, -1] |= ~mine.any(axis=1)
    keep = ~mine
    shape = (found.shape[0], found.shape[1] - 1)
    return [each[keep].reshape(shape) for each in (found, *others)]


def ask(vectors: Floats32, rows: Ints, metric: str, within: int | None = None) -> Asked:
    """Exact neighbours of some rows, among the first `within` vectors."""
    base = vectors[:within]
    queries = np.ascontiguousarray(vectors[rows])
    k = min(AT, len(base) - 1)
    started = time.perf_counter()
    _, found = exact(base, queries, k + 1, metric)
    seconds = (time.perf_counter() - started) / len(rows)
    return asked_among(vectors, rows, queries, found, metric, seconds)


def asked_among(
    vectors: Floats32, rows: Ints, queries: Floats32, found: Ints, metric: str, seconds: float = 0.0
) -> Asked:
    """Queries with their true neighbours, given the k + 1 nearest rows of each."""
    truth = np.ascontiguousarray(without_self(rows, found)[0])
    if not truth.size:
        return Asked(rows, queries, truth, np.zeros(len(rows), np.float32), seconds)
    # The same arithmetic as in re-ranking, so that values of one pair are equal.
    values = compare(vectors, queries, truth, metric)
    worst = values.min(axis=1) if metric == "cosine" else values.max(axis=1)
    return Asked(rows, queries, truth, worst, seconds)


def some(asked: Asked, which: NDArray[np.bool_]) -> Asked:
    """Some of the queries."""
    queries = np.ascontiguousarray(asked.queries[which])
    return Asked(asked.rows[which], queries, asked.truth[which], asked.worst[which], asked.seconds)


def hits(asked: Asked, values: Floats32, rows: Ints, metric: str) -> NDArray[np.float64]:
    """Share of each query's true neighbours that were found; a twin at the same distance counts."""
    if asked.k == 0:
        return np.ones(len(asked.rows))
    found, values = without_self(asked.rows, rows, values)
    slack = TIE * float((asked.queries.astype(np.float64) ** 2).sum(axis=1).max())
    near = (values >= asked.worst[:, None] - slack if metric == "cosine"
            else values <= asked.worst[:, None] + slack)  # fmt: skip
    shares: NDArray[np.float64] = (near & (found >= 0)).sum(axis=1) / asked.k
    return shares


def per_second(work: Callable[[], Any], queries: int) -> float:
    """Queries per second: the fastest of some repetitions, which other processes disturb least."""
    seconds: list[float] = []
    begun = time.process_time()
    while not seconds or (time.process_time() - begun < (LONG_S if len(seconds) < REPEATS
                                                          else SPENT_S)):  # fmt: skip
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return queries / max(min(seconds), 1e-9)
