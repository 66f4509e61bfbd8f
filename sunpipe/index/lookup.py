"""One search of prepared vectors, whatever the kind; measured and used alike.

What is asked without a filter, and is like the archive, is answered by the effort that
was tuned and measured for it. Everything else loses nothing either: few allowed rows
are compared one by one; codes are read through the filter, so that what it leaves out
never takes a place; and an answer is taken only when it can be trusted
(`sunpipe.index.margin`), else more lists are read and more codes compared, in the end
all lists, or every row, whichever costs less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import ALL_READ, Effort, Found, find, squared
from sunpipe.index.exact import exact, gpus

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats32 = NDArray[np.float32]
MOST = 16_384  # candidates per query; beyond, everything allowed is compared
WIDER = 4  # times the lists, when an answer is not trusted
DEEPER = 2  # times the comparisons, then and under any filter
SHALLOW = 0.5  # of the comparisons: an answer that came later by code is not trusted


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
        ``nprobe``, ``factor``; ``margin`` and ``far`` (squared distance of the nearest)
        that the archive's own rows keep to; ``trusted`` margin of all other answers;
        ``full_factor`` with every list (0: codes do not suffice); empty for ``flat``.
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
    values = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    left = np.arange(len(queries))
    plain = Effort(index.search["nprobe"], index.search["factor"])
    if allowed is None:
        found = find(index.faiss, index.vectors, queries, k, index.metric, plain)
        values, rows = found.values, found.rows
        left = np.flatnonzero(~_usual(index, found))
    for effort in efforts(plain, index.faiss.nlist, start=allowed is not None):
        # The last resort may be the cheaper one, where few rows are allowed.
        cost = index.costs["full"] * effort.nprobe / index.faiss.nlist
        if not len(left) or _one_by_one_seconds(index, len(left), count) <= len(left) * cost:
            break
        found = find(index.faiss, index.vectors, queries[left], k, index.metric, effort, allowed)
        values[left], rows[left] = found.values, found.rows
        left = left[score(found) < index.search["trusted"]]
    if len(left):
        values[left], rows[left] = _all_lists(index, queries[left], k, allowed, count)
    return values, rows


def efforts(plain: Effort, lists: int, start: bool) -> Iterator[Effort]:
    """Growing ones whose answers are judged; with `start`, the first reads as many lists."""
    nprobe, factor = plain.nprobe, DEEPER * plain.factor
    if start:
        yield Effort(nprobe, factor)
    while WIDER * WIDER * nprobe <= lists:  # beyond, all lists cost little more
        nprobe, factor = WIDER * nprobe, DEEPER * factor
        yield Effort(nprobe, factor)


def score(found: Found) -> NDArray[np.float64]:
    """How far answers can be trusted: their margin, if they came early by code.

    Where every list was read it is how early they came.
    """
    early = np.where(found.deepest <= SHALLOW, found.margin, 0.0)
    return np.where(found.margin < ALL_READ, early, 1 / np.maximum(found.deepest, 1e-3))


def _usual(index: Lookup, found: Found) -> NDArray[np.bool_]:
    """Answers such as the archive's own rows have."""
    near = squared(found.values[:, 0], index.metric) <= index.search["far"]
    return (found.margin >= index.search["margin"]) & near


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
