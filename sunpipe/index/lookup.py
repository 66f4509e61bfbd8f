"""One search of prepared vectors, whatever the kind; measured and used alike.

A filter loses nothing: few allowed rows are compared one by one; codes are read
through the filter, so that what it leaves out never takes a place; and an answer
from some inverted lists is taken only when its margin is wide enough
(`sunpipe.index.margin`), else it is sought with every list or one by one,
whichever costs less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import Effort, find
from sunpipe.index.exact import exact, gpus
from sunpipe.index.margin import widened

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]
MOST = 16_384  # candidates per query; beyond, everything allowed is compared


@dataclass(frozen=True)
class Lookup:
    """What a search needs.

    Attributes
    ----------
    faiss : faiss.Index
    vectors : float32 ndarray (N, dim)
        Prepared, mapped.
    metric, kind : str
    search : dict
        ``nprobe``, ``factor``, ``full_factor`` (with every list; 0: codes do not
        suffice), ``margin``; empty for ``flat``.
    costs : dict
        Seconds: ``scan`` and ``full`` (all lists) per query, ``exact`` per comparison,
        ``gather`` per row that is fetched.
    """

    faiss: Any
    vectors: Floats32
    metric: str
    kind: str
    search: dict[str, Any]
    costs: dict[str, float]


def lookup(
    index: Lookup, queries: Floats32, k: int, allowed: Bools | None
) -> tuple[Floats32, Ints]:
    """The `k` nearest allowed rows of each query; there are at least `k`.

    Returns
    -------
    values : float32 ndarray (Q, k)
        FAISS's numbers, nearest first.
    rows : int64 ndarray (Q, k)
    """
    count = len(index.vectors) if allowed is None else int(np.count_nonzero(allowed))
    if index.kind == "flat" or gpus() or _dear(index, len(queries), k, count):
        return one_by_one(index, queries, k, allowed)
    lists, search = index.faiss.nlist, index.search
    nprobe = widened(search["nprobe"], lists, len(index.vectors), count)
    if nprobe >= lists and (allowed is not None or lists > 1):
        return _all_lists(index, queries, k, allowed, count)
    found = find(index.faiss, index.vectors, queries, k, index.metric,
                 Effort(nprobe, search["factor"]), allowed)  # fmt: skip
    doubtful = np.flatnonzero(found.margin < search["margin"])
    if len(doubtful):
        again = _all_lists(index, queries[doubtful], k, allowed, count)
        found.values[doubtful], found.rows[doubtful] = again
    return found.values, found.rows


def _dear(index: Lookup, queries: int, k: int, count: int) -> bool:
    """Whether codes cannot help, or cost more than comparing all that is allowed."""
    if k * max(index.search["factor"], index.search["full_factor"]) > min(MOST, count - 1):
        return True
    return _one_by_one_seconds(index, queries, count) <= queries * index.costs["scan"]


def _one_by_one_seconds(index: Lookup, queries: int, count: int) -> float:
    return count * (queries * index.costs["exact"] + index.costs["gather"])


def _all_lists(
    index: Lookup, queries: Floats32, k: int, allowed: Bools | None, count: int
) -> tuple[Floats32, Ints]:
    seconds = _one_by_one_seconds(index, len(queries), count)
    if not index.search["full_factor"] or seconds <= len(queries) * index.costs["full"]:
        return one_by_one(index, queries, k, allowed)
    full = Effort(index.faiss.nlist, index.search["full_factor"])
    found = find(index.faiss, index.vectors, queries, k, index.metric, full, allowed)
    return found.values, found.rows


def one_by_one(
    index: Lookup, queries: Floats32, k: int, allowed: Bools | None
) -> tuple[Floats32, Ints]:
    """Exact: every allowed row is compared."""
    if allowed is None and index.kind == "flat" and not gpus():
        found: tuple[Floats32, Ints] = index.faiss.search(queries, k)
        return found
    rows = None if allowed is None else np.flatnonzero(allowed)
    return exact(index.vectors, queries, k, index.metric, rows)
