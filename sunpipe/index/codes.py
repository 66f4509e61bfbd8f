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
ROUNDS = 8  # of k-means
SEED = 1234
LEAST = 11  # answers that candidates are counted for: as many as the tuning asks for
TINY = 1e-12  # of a squared distance: twins
ALL_READ = 1e9  # margin when no list was left out


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


@dataclass(frozen=True)
class Found:
    """What a search by codes found.

    Attributes
    ----------
    values : float32 ndarray (Q, k)
        FAISS's numbers, exact, nearest first.
    rows : int64 ndarray (Q, k)
        -1 where too few were seen.
    margin : float64 ndarray (Q,)
        Squared distance of the nearest list that was not read, in that of the last
        answer; at most `ALL_READ`, 0 when answers are missing.
    deepest : float64 ndarray (Q,)
        Place, in the order of codes, of the answer that came last there: in (0, 1],
        of all that were compared; 0 when there were no more to compare.
    """

    values: Floats32
    rows: Ints
    margin: NDArray[np.float64]
    deepest: NDArray[np.float64]


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
    index.clustering_index = None  # type: ignore[assignment]
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
) -> tuple[Ints, Floats32 | None]:
    """The rows nearest by code, and how far the nearest list is that was not read.

    Returns
    -------
    rows : int64 ndarray (Q, number)
        -1 where there are no more.
    beyond : float32 ndarray (Q,) or None
        FAISS's value between query and the centroid of that list; None if all were read.
    """
    import faiss

    count, number = len(queries), min(number, index.ntotal)
    nprobe = min(nprobe, index.nlist)
    options: dict[str, Any] = {"nprobe": nprobe}
    if allowed is not None:
        bits = np.packbits(allowed, bitorder="little")
        options["sel"] = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg,arg-type]
    parameters = faiss.SearchParametersIVF(**options)
    if nprobe == index.nlist:
        _, rows = index.search(queries, number, params=parameters)
        return np.ascontiguousarray(rows, np.int64), None
    # Centroids are compared once: for the lists to read and for the one after them.
    values, lists = index.quantizer.search(queries, nprobe + 1)
    near = np.ascontiguousarray(values[:, :nprobe]), np.ascontiguousarray(lists[:, :nprobe])
    scores = np.empty((count, number), np.float32)
    rows = np.empty((count, number), np.int64)
    at = faiss.swig_ptr
    index.search_preassigned_c(count, at(queries), number, at(near[1]), at(near[0]), at(scores),
                               at(rows), False, parameters, None)  # fmt: skip
    return rows, values[:, nprobe]


def compare(vectors: Floats32, queries: Floats32, rows: Ints, metric: str) -> Floats32:
    """Exact values of (query, row) pairs; the worst there is where a row is -1."""
    import faiss

    values = np.empty(rows.shape, np.float32)
    cosine = metric == "cosine"
    function = getattr(faiss, "fvec_inner_products_by_idx" if cosine else "fvec_L2sqr_by_idx")
    pointers = [faiss.swig_ptr(each) for each in (values, queries, vectors, rows)]
    function(*pointers, vectors.shape[1], len(queries), rows.shape[1])
    values[rows < 0] = -np.inf if cosine else np.inf
    return values


def rerank(
    vectors: Floats32, queries: Floats32, rows: Ints, k: int, metric: str
) -> tuple[Floats32, Ints, Ints]:
    """The `k` nearest of each query's candidates, by exact comparison, and their places there."""
    values = compare(vectors, queries, rows, metric)
    key = -values if metric == "cosine" else values
    places = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    if rows.shape[1] > 4 * k:
        places = np.argpartition(key, k - 1, axis=1)[:, :k]
        key = np.take_along_axis(key, places, 1)
    order = np.lexsort((np.take_along_axis(rows, places, 1), key), axis=1)[:, :k]
    places = np.take_along_axis(places, order, 1)
    return np.take_along_axis(values, places, 1), np.take_along_axis(rows, places, 1), places


def find(
    index: Any, vectors: Floats32, queries: Floats32, k: int, metric: str, effort: Effort,
    allowed: NDArray[np.bool_] | None = None,
) -> Found:  # fmt: skip
    """The `k` nearest by codes and exact re-ranking."""
    number = min(max(k, LEAST) * effort.factor, index.ntotal)
    step = max(1, CELLS // number)
    values = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    margin, deepest = np.full((2, len(queries)), ALL_READ)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        near, beyond = candidates(index, queries[part], number, effort.nprobe, allowed)
        values[part], rows[part], places = rerank(vectors, queries[part], near, k, metric)
        deepest[part] = np.where(near[:, -1] < 0, 0.0, (places.max(axis=1) + 1) / number)
        if beyond is not None:
            last = np.maximum(squared(values[part, -1], metric), TINY)
            ratio = np.minimum(squared(beyond, metric) / last, ALL_READ)
            margin[part] = np.where(rows[part, -1] >= 0, ratio, 0.0)
    return Found(values, rows, margin, deepest)


def squared(values: Floats32, metric: str) -> NDArray[np.float64]:
    """FAISS's numbers as squared distances; of unit vectors |a - b|^2 = 2 - 2 a.b."""
    wide = values.astype(np.float64)
    return np.maximum(2 - 2 * wide, 0) if metric == "cosine" else wide
