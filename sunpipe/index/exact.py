"""Exact nearest neighbours over mapped vectors, block by block, on GPUs where FAISS has them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK_BYTES = 128 << 20  # of vectors compared at once


@cache
def gpus() -> int:
    """GPUs that this FAISS can use; 0 for the CPU build."""
    import faiss

    return int(faiss.get_num_gpus())


@cache
def _resources() -> Any:
    import faiss

    return faiss.StandardGpuResources()


def device() -> str:
    """Where vectors are compared, in words."""
    return f"{gpus()} GPU" if gpus() else "CPU"


def faiss_metric(metric: str) -> int:
    """FAISS's number of the inner product (``cosine``) or of L2 (``euclidean``)."""
    import faiss

    return int(faiss.METRIC_INNER_PRODUCT if metric == "cosine" else faiss.METRIC_L2)


def _knn(queries: Floats32, base: Floats32, k: int, metric: int) -> tuple[Floats32, Ints]:
    """Nearest of one block; the same call with and without a GPU."""
    import faiss

    if gpus():
        return faiss.knn_gpu(_resources(), queries, base, k, metric=metric)
    return faiss.knn(queries, base, k, metric)


def exact(
    vectors: Floats32, queries: Floats32, k: int, metric: str, rows: Ints | None = None
) -> tuple[Floats32, Ints]:
    """The `k` nearest of all vectors, or of some rows, to each query.

    Parameters
    ----------
    vectors : float32 ndarray (N, dim)
        Prepared; may be mapped from disk: one block is in memory at a time.
    queries : float32 ndarray (Q, dim)
        Prepared.
    rows : int64 ndarray, optional
        Rows that may answer; all by default.

    Returns
    -------
    values : float32 ndarray (Q, m)
        Inner products (``cosine``) or squared distances, nearest first.
    rows : int64 ndarray (Q, m)
        m is `k` or the number of rows, whichever is less.
    """
    count, dim = len(vectors) if rows is None else len(rows), vectors.shape[1]
    k = min(k, count)
    sign = -1.0 if metric == "cosine" else 1.0
    best = np.zeros((len(queries), 0), np.float32)
    found = np.zeros((len(queries), 0), np.int64)
    if k == 0 or not len(queries):
        return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)
    block = max(1, BLOCK_BYTES // (4 * dim))
    for start in range(0, count, block):
        if rows is None:
            base = np.require(vectors[start : start + block], np.float32, ["C", "ALIGNED"])
        else:
            base = vectors[rows[start : start + block]]
        values, places = _knn(queries, base, min(k, len(base)), faiss_metric(metric))
        mine = places + start if rows is None else rows[start + places]
        values, mine = np.hstack([best, values]), np.hstack([found, mine])
        order = np.argsort(sign * values, axis=1, kind="stable")[:, :k]
        best, found = np.take_along_axis(values, order, 1), np.take_along_axis(mine, order, 1)
    return best, found
