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
Answer = tuple[Floats32, Ints]
AT = 10  # neighbours that must be found
QUERIES = 512  # of each set
SEED = 20240
REPEATS = 4
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
    truth = np.ascontiguousarray(without_self(rows, found)[0])
    # The same arithmetic as in re-ranking, so that values of one pair are equal.
    values = compare(np.asarray(base), queries, truth, metric) if k else np.zeros((len(rows), 1))
    worst = values.min(axis=1) if metric == "cosine" else values.max(axis=1)
    return Asked(rows, queries, truth, worst.astype(np.float32), seconds)


def hits(asked: Asked, answer: Answer, metric: str) -> NDArray[np.float64]:
    """Share of each query's true neighbours that were found; a twin at the same distance counts."""
    if asked.k == 0:
        return np.ones(len(asked.rows))
    found, values = without_self(asked.rows, answer[1], answer[0])
    slack = TIE * float((asked.queries.astype(np.float64) ** 2).sum(axis=1).max())
    near = (values >= asked.worst[:, None] - slack if metric == "cosine"
            else values <= asked.worst[:, None] + slack)  # fmt: skip
    shares: NDArray[np.float64] = (near & (found >= 0)).sum(axis=1) / asked.k
    return shares


def per_second(work: Callable[[], Any], queries: int) -> float:
    """Queries per second: the fastest of some repetitions, which other processes disturb least."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return queries / max(min(seconds), 1e-9)
