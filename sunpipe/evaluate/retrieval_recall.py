"""Recall@k of the index against comparing every vector, for the queries of the scorecard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.embed.store import EmbeddingInfo, read_vectors
from sunpipe.evaluate.retrieval_baselines import unit_rows, vector_distances
from sunpipe.evaluate.retrieval_nearest import blocks
from sunpipe.files import sha256

if TYPE_CHECKING:
    from sunpipe.index.store import Index

Floats32 = NDArray[np.float32]
SAME = 1e-5  # of the k-th distance: what rounding may move


def exact_limit(folder: Path, info: EmbeddingInfo, query: Floats32, metric: str, k: int) -> Any:
    """Distance (Q,) of the k-th nearest of all vectors of an embedding, by comparing all."""
    best = np.full((len(query), k), np.inf, np.float32)
    for part in read_vectors(folder, info):
        for rows in blocks(len(part)):
            far = vector_distances(query, unit_rows(part[rows], metric), metric)
            best = np.partition(np.concatenate([best, far], axis=1), k - 1, axis=1)[:, :k]
    return best.max(axis=1).astype(np.float64)


def gather(folder: Path, info: EmbeddingInfo, rows: NDArray[np.int64]) -> Floats32:
    """Vectors of some rows of an embedding, (M, dim)."""
    found, start = np.empty((len(rows), info.dim), np.float32), 0
    for part in read_vectors(folder, info):
        inside = (rows >= start) & (rows < start + len(part))
        found[inside] = part[rows[inside] - start]
        start += len(part)
    return found


def _split(places: NDArray[np.int64], known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """`places`, one for each True of `known` (Q, k), as a list of rows."""
    return np.split(places, np.cumsum(known.sum(axis=1))[:-1])


def index_recall(
    folder: Path, index: Index, info: EmbeddingInfo, vectors: Floats32, k: int
) -> dict[str, Any]:
    """Share of the true `k` nearest that the index finds.

    A returned tile counts when it is no farther than the true k-th, so that ties,
    which copies of one patch make, cost nothing.

    Parameters
    ----------
    folder : Path
        The embedding the index was built from.
    index : Index
    info : EmbeddingInfo
        Of `folder`.
    vectors : float32 ndarray (Q, dim)
        As the encoder gave them.

    Returns
    -------
    dict
        kind, ``recall_<k>``, worst_query, queries, vectors; or ``left_out``, the reason,
        for an index of other vectors than `folder` holds now.
    """
    from sunpipe.index.nearest import nearest_tiles

    if index.info.embedding != sha256(folder / "embedding.json"):
        return {"left_out": f"not built from {folder} as it is now; run sunpipe index build"}
    metric = index.info.metric
    k = min(k, info.count)
    query = unit_rows(vectors, metric)
    limit = exact_limit(folder, info, query, metric, k)
    _, rows = nearest_tiles(index, vectors, k, np.ones(info.count, bool))
    known, places = np.unique(rows[rows >= 0], return_inverse=True)
    stored = unit_rows(gather(folder, info, known), metric)
    # The index's own distances may be approximate: those of its rows are taken anew.
    far = np.full(rows.shape, np.inf)
    for number, (row, mine) in enumerate(zip(rows, _split(places, rows >= 0), strict=True)):
        far[number, row >= 0] = vector_distances(query[number, None], stored[mine], metric)[0]
    # Rounding: a distance 1 - cos is a difference of numbers near 1.
    slack = SAME * np.maximum(limit, 1e-1 if metric == "cosine" else 0.0)
    good = far <= (limit + slack)[:, None]
    share = good.sum(axis=1) / k
    return {
        "kind": index.info.kind, f"recall_{k}": float(share.mean()),
        "worst_query": float(share.min()), "queries": len(query), "vectors": info.count,
    }  # fmt: skip
