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
    return np.asarray(index.vectors[np.asarray(rows, np.int64)], np.float32)


def distances(index: Index, products: NDArray[np.float32]) -> Floats:
    """FAISS's numbers as distances: 1 - cos, or the length of the difference."""
    wide = products.astype(np.float64)
    far = 1 - wide if index.info.metric == "cosine" else np.sqrt(np.maximum(wide, 0))
    return np.maximum(far, 0)


def asked_vectors(index: Index, vectors: Floats32) -> Floats32:
    """Vectors of a question in the form of the index, refused where they mean nothing.

    Raises
    ------
    DataError
        A vector that is not finite, or that has no direction under ``cosine``.
    """
    if not np.isfinite(vectors).all():
        raise DataError("a query vector has NaN or infinity: the patch has no valid pixels, or is"
                        " not in the unit of the dataset")  # fmt: skip
    if index.info.metric == "cosine" and not vectors.any(axis=1).all():
        raise DataError("a query vector is zero: it has no direction, so no cosine distance to"
                        " anything")  # fmt: skip
    return prepare(vectors, index.info.normalisation)


def nearest_tiles(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> tuple[Floats, Ints]:
    """The `k` nearest allowed tiles of each vector, nearest first.

    A filter applies while searching, never afterwards: see `sunpipe.index.lookup`.

    Returns
    -------
    distances : float64 ndarray (Q, m)
    rows : int64 ndarray (Q, m)
        m is `k`, or fewer when fewer rows are allowed.

    Raises
    ------
    DataError
        As `asked_vectors`.
    """
    count = int(np.count_nonzero(allowed))
    k = min(k, count)
    if k == 0 or not len(vectors):
        return np.zeros((len(vectors), 0)), np.zeros((len(vectors), 0), np.int64)
    info = index.info
    opened = Lookup(index.faiss, index.vectors, info.metric, info.kind, info.search, info.costs)
    values, rows = lookup(
        opened, asked_vectors(index, vectors), k, None if count == len(allowed) else allowed
    )
    return distances(index, values), rows.astype(np.int64)


def record_codes(index: Index) -> Ints:
    """A number for each row, equal for rows of one record."""
    column = index.table["record"].combine_chunks().dictionary_encode()
    return column.indices.to_numpy().astype(np.int64)
