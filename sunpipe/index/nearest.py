"""The rows of an index that are nearest to a vector, under any filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.index.lookup import Lookup, lookup
from sunpipe.index.store import Index, prepare

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]


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

    Nothing is lost under a filter: see `sunpipe.index.lookup`.

    Returns
    -------
    distances : float64 ndarray (Q, m)
    rows : int64 ndarray (Q, m)
        m is `k`, or fewer when fewer rows are allowed.

    Raises
    ------
    DataError
        A vector that is not finite.
    """
    count = int(np.count_nonzero(allowed))
    k = min(k, count)
    if k == 0 or not len(vectors):
        return np.zeros((len(vectors), 0)), np.zeros((len(vectors), 0), np.int64)
    info = index.info
    opened = Lookup(index.faiss, index.vectors, info.metric, info.kind, info.search, info.costs)
    values, rows = lookup(
        opened, _queries(index, vectors), k, None if count == len(allowed) else allowed
    )
    return distances(index, values), rows.astype(np.int64)


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
