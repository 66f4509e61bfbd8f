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
    vectors = np.stack([index.faiss.reconstruct(row) for row in rows])
    return Query(vectors, {"kind": "record", "record": record, "tiles": len(rows)}, record,
                 index.info.encoder["digest"])  # fmt: skip


def allowed_rows(index: Index, where: str | None, without: str | None) -> Bools:
    """Rows that may answer: those of the condition, less a record's own."""
    allowed = np.ones(len(index.table), bool) if where is None else where_mask(index.table, where)
    if without is not None:
        allowed &= pc.not_equal(index.table["record"], without).to_numpy()
    return allowed


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
        stored = index.faiss.reconstruct_batch(part)
        if index.info.metric == "cosine":
            products = stored @ query.T
        else:
            products = faiss.pairwise_distances(stored, query)
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
