"""Nearest tiles and nearest records of an index, exactly, under any filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.index.nearest import distances, nearest_tiles, record_codes, stored
from sunpipe.index.store import Index, prepare
from sunpipe.index.where import where_mask
from sunpipe.shards.schema import RECORD_COLUMNS

BLOCK = 65536  # vectors compared at once: 32 MB at 128 numbers each
NOT_KEYWORDS = {*RECORD_COLUMNS, "embedding", "vector"}

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Query:
    """Vectors of one question, as the encoder gave them.

    Attributes
    ----------
    vectors : float32 ndarray (Q, dim)
        One per tile of the query.
    about : dict
        What the answer says of the question; has at least ``kind``.
    record : str or None
        The query's own record, left out of the answer by default.
    encoder : str or None
        Digest of the encoder that made `vectors`.
    """

    vectors: NDArray[np.float32]
    about: dict[str, Any]
    record: str | None = None
    encoder: str | None = None


def check_encoder(index: Index, digest: str | None, dim: int) -> None:
    """Refuse vectors of another encoder or another length, by name.

    Raises
    ------
    DataError
    """
    mine = index.info.encoder["digest"]
    if digest is not None and digest != mine:
        raise DataError(
            f"the index {index.folder} holds vectors of encoder {mine[:12]}"
            f" ({index.info.encoder['run']}), the query is from encoder {digest[:12]}; search with"
            " the encoder of the index, or build the index again"
        )
    if dim != index.info.dim:
        raise DataError(
            f"the index {index.folder} holds vectors of {index.info.dim} numbers, the query has"
            f" {dim}; search with the encoder of the index"
        )


def record_query(index: Index, record: str) -> Query:
    """The tiles of a record that stands in the index.

    Raises
    ------
    UsageError
        The record is not in the index; near ones are listed.
    """
    import difflib

    names = index.table["record"].to_pylist()
    rows = [row for row, name in enumerate(names) if name == record]
    if not rows:
        near = difflib.get_close_matches(record, sorted(set(names)), n=3, cutoff=0.5)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise UsageError(f"record {record!r} is not in {index.folder}{hint}")
    vectors = stored(index, np.asarray(rows))
    return Query(vectors, {"kind": "record", "record": record, "tiles": len(rows)}, record,
                 index.info.encoder["digest"])  # fmt: skip


def allowed_rows(index: Index, where: str | None, without: str | None) -> Bools:
    """Rows that may answer: those of the condition, less a record's own."""
    allowed = np.ones(len(index.table), bool) if where is None else where_mask(index.table, where)
    if without is not None:
        allowed &= pc.not_equal(index.table["record"], without).to_numpy()
    return allowed


def joint_records(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> list[tuple[float, int]]:
    """The `k` records nearest to all vectors together.

    A record's distance is the mean over the query's tiles of the distance to its
    best tile; the tile named is the one nearest to any of them. Every vector is
    compared, block by block.

    Returns
    -------
    list of (distance, row)
    """
    import faiss

    rows = np.flatnonzero(allowed)
    if not len(rows) or not len(vectors):
        return []
    names, codes = np.unique(record_codes(index)[rows], return_inverse=True)
    query = prepare(vectors, index.info.normalisation)
    best = np.full((len(names), len(query)), np.inf)
    closest, where_ = np.full(len(names), np.inf), np.zeros(len(names), np.int64)
    for start in range(0, len(rows), BLOCK):
        part, code = rows[start : start + BLOCK], codes[start : start + BLOCK]
        mine = stored(index, part)
        if index.info.metric == "cosine":
            products = mine @ query.T
        else:
            products = faiss.pairwise_distances(mine, query)
        far = distances(index, products)
        np.minimum.at(best, code, far)
        nearest = far.min(axis=1)
        # Walking from far to near leaves each record's nearest row in place.
        order = np.argsort(-nearest, kind="stable")
        better = order[nearest[order] < closest[code[order]]]
        closest[code[better]], where_[code[better]] = nearest[better], part[better]
    mean = best.mean(axis=1)
    ranked = np.argsort(mean, kind="stable")[:k]
    return [(float(mean[number]), int(where_[number])) for number in ranked]


def joint_tiles(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> list[tuple[float, int]]:
    """The `k` tiles nearest to any of the vectors, as (distance, row)."""
    far, rows = nearest_tiles(index, vectors, k, allowed)
    best: dict[int, float] = {}
    for distance, row in sorted(zip(far.ravel().tolist(), rows.ravel().tolist(), strict=True)):
        best.setdefault(row, distance)
    return [(distance, row) for row, distance in list(best.items())[:k]]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def hit(table: pa.Table, distance: float, row: int) -> dict[str, Any]:
    """One answer: what identifies the observation, and its SHARP keywords."""
    found = {name: _plain(table[name][row].as_py()) for name in table.column_names}
    return {
        "record": found["record"], "distance": distance, "harpnum": found["harpnum"],
        "t_rec": found["t_rec"], "tile": [found["tile_y"], found["tile_x"]],
        "split": found["split"], "row": found["row"], "noaa_ars": found["noaa_ars"],
        "mu": found["mu"], "flux_mx": found["flux_mx"],
        "keywords": {name: value for name, value in found.items() if name not in NOT_KEYWORDS},
    }  # fmt: skip


def search(
    index: Index,
    query: Query,
    k: int,
    where: str | None = None,
    include_self: bool = False,
    per: str = "record",
) -> list[dict[str, Any]]:
    """Answer one question.

    Parameters
    ----------
    index : Index
    query : Query
        One vector per tile of the question.
    k : int
        Answers wanted; fewer come when fewer are allowed.
    where : str, optional
        Condition on the metadata (`sunpipe.index.where`).
    include_self : bool
        Let the query's own record answer.
    per : {"record", "tile"}
        One answer per record (its best tile), or tiles.

    Returns
    -------
    list of dict
        Nearest first, as `hit` makes them.
    """
    if k < 1:
        raise UsageError(f"-k {k}: ask for at least one")
    check_encoder(index, query.encoder, query.vectors.shape[1])
    allowed = allowed_rows(index, where, None if include_self else query.record)
    ranked = (joint_records if per == "record" else joint_tiles)(index, query.vectors, k, allowed)
    return [hit(index.table, distance, row) for distance, row in ranked]
