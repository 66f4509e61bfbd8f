"""The rows of an index that are nearest to a vector, under any filter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.store import Index, prepare

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def stored(index: Index, rows: Ints) -> NDArray[np.float32]:
    """Vectors of some rows as the index holds them (n, dim), normalised or not."""
    return index.faiss.reconstruct_batch(np.ascontiguousarray(rows, np.int64))


def distances(index: Index, products: NDArray[np.float32]) -> Floats:
    """FAISS's numbers as distances: 1 - cos, or the length of the difference."""
    wide = products.astype(np.float64)
    far = 1 - wide if index.info.metric == "cosine" else np.sqrt(np.maximum(wide, 0))
    return np.maximum(far, 0)


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
    import faiss

    rows = np.flatnonzero(allowed)
    k = min(k, len(rows))
    if k == 0 or not len(vectors):
        return np.zeros((len(vectors), 0)), np.zeros((len(vectors), 0), np.int64)
    parameters = None
    if len(rows) < len(allowed):
        bits = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg,arg-type]
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
    products, found = index.faiss.search(
        prepare(vectors, index.info.normalisation), k, params=parameters
    )
    return distances(index, products), found.astype(np.int64)


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
