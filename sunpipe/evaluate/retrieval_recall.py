"""Recall@k of the index against comparing every vector, for the queries of the scorecard.

Both sides are the vectors that the index itself holds, so an index into which several
embeddings were added is judged as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_baselines import unit_rows, vector_distances
from sunpipe.evaluate.retrieval_nearest import blocks
from sunpipe.files import sha256

if TYPE_CHECKING:
    from sunpipe.index.store import Index

Floats32 = NDArray[np.float32]
SAME = 1e-5  # of the k-th distance: what rounding may move


def exact_limit(vectors: Floats32, query: Floats32, metric: str, k: int) -> NDArray[np.float64]:
    """Distance (Q,) of the k-th nearest of `vectors` (N, dim), by comparing all.

    Both sides are as `unit_rows` gives them; `vectors` may be mapped from disk.
    """
    best = np.full((len(query), k), np.inf, np.float32)
    for rows in blocks(len(vectors)):
        far = vector_distances(query, np.array(vectors[rows], np.float32), metric)
        best = np.partition(np.concatenate([best, far], axis=1), k - 1, axis=1)[:, :k]
    return best.max(axis=1).astype(np.float64)


def _split(places: NDArray[np.int64], known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """`places`, one for each True of `known` (Q, k), as a list of rows."""
    return np.split(places, np.cumsum(known.sum(axis=1))[:-1])


def index_recall(embedding: Path, index: Index, vectors: Floats32, k: int) -> dict[str, Any]:
    """Share of the true `k` nearest that the index finds.

    A returned tile counts when it is no farther than the true k-th, so that ties,
    which copies of one patch make, cost nothing.

    Parameters
    ----------
    embedding : Path
        The folder of the embedding that is scored; the index must hold it, with or
        without others.
    index : Index
    vectors : float32 ndarray (Q, dim)
        As the encoder gave them.
    k : int

    Returns
    -------
    dict
        kind, ``recall_<k>``, worst_query, queries, vectors (all of the index), embeddings
        (how many were added); or ``left_out``, the reason, for an index without
        `embedding` as it is now.
    """
    from sunpipe.index.nearest import nearest_tiles, stored

    info = index.info
    if sha256(embedding / "embedding.json") not in {one["embedding"] for one in info.sources}:
        return {"left_out": f"it does not hold {embedding} as it is now; run sunpipe index build"}
    metric = info.metric
    k = min(k, info.count)
    query = unit_rows(vectors, metric)
    limit = exact_limit(index.vectors, query, metric, k)
    _, rows = nearest_tiles(index, vectors, k, np.ones(info.count, bool))
    known, places = np.unique(rows[rows >= 0], return_inverse=True)
    mapped = stored(index, known)
    # The index's own distances may be approximate: those of its rows are taken anew.
    far = np.full(rows.shape, np.inf)
    for number, (row, mine) in enumerate(zip(rows, _split(places, rows >= 0), strict=True)):
        far[number, row >= 0] = vector_distances(query[number, None], mapped[mine], metric)[0]
    # Rounding: a distance 1 - cos is a difference of numbers near 1.
    slack = SAME * np.maximum(limit, 1e-1 if metric == "cosine" else 0.0)
    good = far <= (limit + slack)[:, None]
    share = good.sum(axis=1) / k
    return {
        "kind": info.kind, f"recall_{k}": float(share.mean()),
        "worst_query": float(share.min()), "queries": len(query), "vectors": info.count,
        "embeddings": len(info.sources),
    }  # fmt: skip
