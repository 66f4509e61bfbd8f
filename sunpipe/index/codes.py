"""Compressed codes with exact re-ranking: one structure for ``fastscan`` and ``ivf``.

A vector becomes 4-bit numbers, one for every `sub` of its dimensions, which are
compared 32 vectors at a time from registers (product quantisation: Jegou et al.
2011, IEEE TPAMI 33, 117; in registers: Andre et al. 2017, IEEE TPAMI 43, 1677).
The best by code are compared again exactly, from the vectors on disk. ``fastscan``
has one list, so every code is read; ``ivf`` has many and reads the nearest ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.exact import faiss_metric, gpus

Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
CELLS = 4 << 20  # (query, candidate) pairs at once
ROUNDS = 10  # of k-means
SEED = 1234


@dataclass(frozen=True)
class Shape:
    """What a code index is made of: `lists`, and dimensions per 4-bit number (`sub`)."""

    lists: int
    sub: int


@dataclass(frozen=True)
class Effort:
    """How hard a search tries: lists read per query, and exact comparisons per answer."""

    nprobe: int
    factor: int


def subs(dim: int) -> list[int]:
    """Dimensions per number worth trying: fewer where vectors are short.

    >>> subs(512), subs(128), subs(7)
    ([8, 4], [4, 2], [1])
    """
    wanted = (8, 4) if dim >= 256 else (4, 2)
    return [sub for sub in wanted if dim % sub == 0 and dim > sub] or [1]


def train(sample: Floats32, metric: str, shape: Shape) -> Any:
    """An empty FAISS index, its centroids and code books learned from a sample."""
    import faiss

    dim = sample.shape[1]
    kind = faiss_metric(metric)
    centroids = faiss.IndexFlat(dim, kind)
    index = faiss.IndexIVFPQFastScan(centroids, dim, shape.lists, dim // shape.sub, 4, kind, 32)
    index.by_residual = shape.lists > 1
    for part in (index.cp, index.pq.cp):
        part.seed, part.min_points_per_centroid = SEED, 1
    index.cp.niter = ROUNDS
    index.cp.max_points_per_centroid = max(1, len(sample) // shape.lists + 1)
    if gpus():  # k-means is nearly all of the training
        index.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlat(dim, kind))
    index.train(sample)
    index.clustering_index = None
    return index


def copy_of(trained: Any) -> Any:
    """The same index again, to be filled apart."""
    import faiss

    return faiss.deserialize_index(faiss.serialize_index(trained))


def add(index: Any, vectors: Floats32, first: int) -> None:
    """Encode vectors whose row numbers begin at `first`."""
    rows = np.arange(first, first + len(vectors), dtype=np.int64)
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), rows)


def candidates(
    index: Any, queries: Floats32, number: int, nprobe: int, allowed: NDArray[np.bool_] | None
) -> Ints:
    """The rows nearest by code (Q, number), -1 where there are no more."""
    import faiss

    number = min(number, index.ntotal)
    options: dict[str, Any] = {"nprobe": min(nprobe, index.nlist)}
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg,arg-type]
    parameters = faiss.SearchParametersIVF(**options)
    _, rows = index.search(queries, number, params=parameters)
    return np.ascontiguousarray(rows, np.int64)


def compare(vectors: Floats32, queries: Floats32, rows: Ints, metric: str) -> Floats32:
    """Exact values of (query, row) pairs; the worst there is where a row is -1."""
    import faiss

    values = np.empty(rows.shape, np.float32)
    cosine = metric == "cosine"
    function = faiss.fvec_inner_products_by_idx if cosine else faiss.fvec_L2sqr_by_idx
    pointers = [faiss.swig_ptr(each) for each in (values, queries, vectors, rows)]
    function(*pointers, vectors.shape[1], len(queries), rows.shape[1])
    values[rows < 0] = -np.inf if cosine else np.inf
    return values


def rerank(
    vectors: Floats32, queries: Floats32, rows: Ints, k: int, metric: str
) -> tuple[Floats32, Ints]:
    """The `k` nearest of each query's candidates, by exact comparison."""
    values = compare(vectors, queries, rows, metric)
    key = -values if metric == "cosine" else values
    if rows.shape[1] > 4 * k:
        front = np.argpartition(key, k - 1, axis=1)[:, :k]
        key, rows, values = (np.take_along_axis(a, front, axis=1) for a in (key, rows, values))
    order = np.lexsort((rows, key), axis=1)[:, :k]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(rows, order, axis=1)


def find(
    index: Any, vectors: Floats32, queries: Floats32, k: int, metric: str, effort: Effort,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[Floats32, Ints]:  # fmt: skip
    """The `k` nearest by codes and exact re-ranking; row -1 where too few were seen.

    Returns
    -------
    values : float32 ndarray (Q, k)
    rows : int64 ndarray (Q, k)
    """
    number = min(k * effort.factor, index.ntotal)
    step = max(1, CELLS // number)
    parts = []
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        rows = candidates(index, part, number, effort.nprobe, allowed)
        parts.append(rerank(vectors, part, rows, k, metric))
    return np.vstack([each for each, _ in parts]), np.vstack([each for _, each in parts])


def next_list(index: Any, queries: Floats32, nprobe: int, metric: str) -> NDArray[np.float64]:
    """Squared distance of each query to the nearest centroid that `nprobe` leaves out."""
    if nprobe >= index.nlist:
        return np.full(len(queries), np.inf)
    values = index.quantizer.search(queries, nprobe + 1)[0][:, nprobe].astype(np.float64)
    return squared(values, metric)


def squared(values: NDArray[np.floating[Any]], metric: str) -> NDArray[np.float64]:
    """FAISS's numbers as squared distances; of unit vectors |a - b|^2 = 2 - 2 a.b."""
    wide = np.asarray(values, np.float64)
    return np.maximum(2 - 2 * wide, 0) if metric == "cosine" else wide
