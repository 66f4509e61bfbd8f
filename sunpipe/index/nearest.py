"""The rows of an index that are nearest to a vector, under any filter.

A filter loses nothing: few allowed rows are compared one by one; codes are read
through the filter, so that what it leaves out never takes a place; and inverted
lists are trusted only when the nearest list that was not read lies beyond the
farthest answer by the margin measured at the build, else more lists are read, at
last all.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.index.codes import Effort, find
from sunpipe.index.exact import exact, gpus
from sunpipe.index.measure import AT
from sunpipe.index.store import Index, prepare
from sunpipe.index.tune import margins

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
MOST = 4096  # candidates per query; beyond, everything allowed is compared
MORE = 4  # times the lists, when an answer is not trusted


def stored(index: Index, rows: Ints) -> Floats32:
    """Vectors of some rows as the index holds them (n, dim), normalised or not."""
    return np.array(index.vectors[np.asarray(rows, np.int64)], np.float32)


def distances(index: Index, products: NDArray[np.float32]) -> Floats:
    """FAISS's numbers as distances: 1 - cos, or the length of the difference."""
    wide = products.astype(np.float64)
    far = 1 - wide if index.info.metric == "cosine" else np.sqrt(np.maximum(wide, 0))
    return np.maximum(far, 0)


def _queries(index: Index, vectors: Floats32) -> Floats32:
    if not np.isfinite(vectors).all():
        raise DataError("a query vector has NaN or infinity: the patch has no valid pixels, or is"
                        " not in the unit of the dataset")  # fmt: skip
    return prepare(vectors, index.info.normalisation)


def nearest_tiles(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> tuple[Floats, Ints]:
    """The `k` nearest allowed tiles of each vector, nearest first.

    Returns
    -------
    distances : float64 ndarray (Q, m)
    rows : int64 ndarray (Q, m)
        m is `k`, or fewer when fewer rows are allowed.
    """
    count = int(np.count_nonzero(allowed))
    k = min(k, count)
    if k == 0 or not len(vectors):
        return np.zeros((len(vectors), 0)), np.zeros((len(vectors), 0), np.int64)
    queries = _queries(index, vectors)
    filter_ = None if count == len(allowed) else allowed
    if _exactly(index, len(queries), k, count):
        values, found = _one_by_one(index, queries, k, filter_)
    elif index.faiss.nlist == 1 or (filter_ is None and k <= AT):
        values, found = _once(index, queries, k, filter_)
    else:
        values, found = _trusted(index, queries, k, filter_, count)
    return distances(index, values), found.astype(np.int64)


def _one_by_one(
    index: Index, queries: Floats32, k: int, allowed: Bools | None
) -> tuple[Floats32, Ints]:
    if allowed is None and index.info.kind == "flat" and not gpus():
        found: tuple[Floats32, Ints] = index.faiss.search(queries, k)
        return found
    rows = None if allowed is None else np.flatnonzero(allowed)
    return exact(index.vectors, queries, k, index.info.metric, rows)


def _exactly(index: Index, queries: int, k: int, allowed: int) -> bool:
    """Whether comparing every allowed row is needed, or no dearer than reading codes."""
    info = index.info
    if info.kind == "flat" or gpus():
        return True
    factor = int(info.search["full_factor"])
    if k * factor > MOST or allowed <= k * factor:
        return True
    one_by_one = allowed * (queries * info.costs["exact"] + info.costs["gather"])
    return one_by_one <= queries * info.costs["scan"]


def _once(index: Index, queries: Floats32, k: int, allowed: Bools | None) -> tuple[Floats32, Ints]:
    search = index.info.search
    effort = Effort(search["nprobe"], search["factor"])
    values, rows = find(index.faiss, index.vectors, queries, k, index.info.metric, effort, allowed)
    short = (rows < 0).any(axis=1)
    if short.any():  # too few vectors in the lists that were read
        full = Effort(index.faiss.nlist, search["full_factor"])
        values[short], rows[short] = find(
            index.faiss, index.vectors, queries[short], k, index.info.metric, full, allowed
        )
    return values, rows


def _trusted(
    index: Index, queries: Floats32, k: int, allowed: Bools | None, count: int
) -> tuple[Floats32, Ints]:
    """Inverted lists, more and more of them, until each answer's margin is wide enough."""
    search, metric = index.info.search, index.info.metric
    lists = index.faiss.nlist
    values = np.zeros((len(queries), k), np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    # As many allowed vectors are read as an unfiltered search reads.
    nprobe = min(lists, math.ceil(search["nprobe"] * len(index.vectors) / count))
    open_ = np.arange(len(queries))
    while len(open_):
        mine = queries[open_]
        factor = search["full_factor" if nprobe >= lists else "factor"]
        values[open_], rows[open_] = find(
            index.faiss, index.vectors, mine, k, metric, Effort(nprobe, factor), allowed
        )
        if nprobe >= lists:
            break
        margin = margins(index.faiss, mine, values[open_], nprobe, metric)
        good = (margin >= search["margin"]) & (rows[open_] >= 0).all(axis=1)
        open_, nprobe = open_[~good], min(lists, MORE * nprobe)
    return values, rows


def record_codes(index: Index) -> Ints:
    """A number for each row, equal for rows of one record."""
    column = index.table["record"].combine_chunks().dictionary_encode()
    return column.indices.to_numpy().astype(np.int64)


def nearest_records(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> list[list[tuple[float, int]]]:
    """For each vector alone: its `k` nearest records, each by its best tile.

    Tiles are asked for in growing numbers until `k` records are among them;
    since tiles come nearest first, a record's first tile is its best.

    Returns
    -------
    list of lists of (distance, row)
    """
    codes = record_codes(index)
    available = int(allowed.sum())
    answers: list[list[tuple[float, int]]] = [[] for _ in range(len(vectors))]
    open_ = list(range(len(vectors)))
    ask = 4 * k
    while open_:
        far, rows = nearest_tiles(index, vectors[open_], ask, allowed)
        still = []
        for place, number in enumerate(open_):
            best: dict[int, tuple[float, int]] = {}
            for distance, row in zip(far[place], rows[place], strict=True):
                best.setdefault(int(codes[row]), (float(distance), int(row)))
            answers[number] = list(best.values())[:k]
            if len(best) < k and ask < available:
                still.append(number)
        open_, ask = still, 4 * ask
    return answers
