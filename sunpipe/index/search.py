"""Questions to an index: near to vectors, near to numbers, or numbers only; under any filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.index.answer import Answer, hits, keyword_names
from sunpipe.index.columns import Columns
from sunpipe.index.exact import exact as compare_all
from sunpipe.index.fold import Fold, Ranked, first_of_groups, fold_codes, nearest_groups
from sunpipe.index.like import like as near_to
from sunpipe.index.limits import Limits, allowed, alone, parts
from sunpipe.index.nearest import asked_vectors, distances, nearest_tiles, record_codes, stored
from sunpipe.index.store import Index

BLOCK = 65536  # vectors compared at once: 32 MB at 128 numbers each

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
    picture : float32 ndarray (H, W), optional
        The question in physical units (Br where there is one), to be shown beside the answers.
    """

    vectors: NDArray[np.float32]
    about: dict[str, Any]
    record: str | None = None
    encoder: str | None = None
    picture: NDArray[np.float32] | None = None


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


def joint_records(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools
) -> list[tuple[float, int]]:
    """The `k` records nearest to all vectors together.

    A record's distance is the mean over the query's tiles of the distance to its
    best tile; the tile named is the one nearest to any of them. Every allowed vector
    is compared with every one of the query, block by block: exact in any index, and the
    cost grows with both numbers.

    Returns
    -------
    list of (distance, row)

    Raises
    ------
    DataError
        A vector that cannot be asked (`sunpipe.index.nearest.asked_vectors`).
    """
    import faiss

    rows = np.flatnonzero(allowed)
    if not len(rows) or not len(vectors):
        return []
    names, codes = np.unique(record_codes(index)[rows], return_inverse=True)
    query = asked_vectors(index, vectors)
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
        # Tiles of one record mostly stand together: one minimum for each run of them.
        starts = np.flatnonzero(np.diff(code, prepend=-1))
        np.minimum.at(best, code[starts], np.minimum.reduceat(far, starts, axis=0))
        nearest = far.min(axis=1)
        # Walking from far to near leaves each record's nearest row in place.
        order = np.argsort(-nearest, kind="stable")
        better = order[nearest[order] < closest[code[order]]]
        closest[code[better]], where_[code[better]] = nearest[better], part[better]
    mean = best.mean(axis=1)
    ranked = np.argsort(mean, kind="stable")[:k]
    return [(float(mean[number]), int(where_[number])) for number in ranked]


def joint_tiles(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools, exact: bool = False
) -> list[tuple[float, int]]:
    """The `k` tiles nearest to any of the vectors, as (distance, row).

    Parameters
    ----------
    exact : bool
        Compare every allowed row, whatever the kind of the index.
    """
    if exact:
        query, mine = asked_vectors(index, vectors), np.flatnonzero(allowed)
        values, rows = compare_all(index.vectors, query, k, index.info.metric, mine)
        far = distances(index, values)
    else:
        far, rows = nearest_tiles(index, vectors, k, allowed)
    best: dict[int, float] = {}
    for distance, row in sorted(zip(far.ravel().tolist(), rows.ravel().tolist(), strict=True)):
        best.setdefault(row, distance)
    return [(distance, row) for row, distance in list(best.items())[:k]]


def _by_vectors(
    index: Index, query: Query, k: int, rows: Bools, codes: Ints, fold: Fold, exact: bool
) -> Ranked:
    """The `k` nearest groups of a question of one or many vectors."""
    if not rows.any():
        return []
    if fold == "none":
        return joint_tiles(index, query.vectors, k, rows, exact)
    if len(query.vectors) == 1 and not exact:
        return nearest_groups(index, query.vectors, k, rows, codes)[0]
    return first_of_groups(joint_records(index, query.vectors, len(codes), rows), k, codes)


def _order(columns: Columns, text: str) -> Floats:
    """Numbers that sort the rows by a column; missing ones are NaN, which sorts last.

    Raises
    ------
    UsageError
    """
    name, *way = text.split()
    if len(way) > 1 or (way and way[0].lower() not in ("asc", "desc")):
        raise UsageError(f"--order {text!r}: write a column, then asc or desc")
    name = columns.find(name, "--order")
    if pa.types.is_string(columns[name].type):
        column = pc.dictionary_encode(columns[name]).combine_chunks()
        place = np.asarray(pc.rank(column.dictionary), np.float64)  # few texts stand on many rows
        at = pc.fill_null(column.indices, len(place)).to_numpy()
        values = np.append(place, np.nan)[at]
    else:
        values = columns.numbers(name)
    return -values if way and way[0].lower() == "desc" else values


def _by_numbers(
    columns: Columns, values: Floats, k: int, rows: Bools, codes: Ints
) -> list[tuple[float, int]]:
    """The first `k` groups by a number; of equal rows the tile with the most flux."""
    mine = np.flatnonzero(rows)
    flux = columns.numbers("flux_mx")[mine]
    record = _order(columns, "record")[mine]
    mine = mine[np.lexsort((-flux, record, values[mine]))]
    _, first = np.unique(codes[mine], return_index=True)
    chosen = mine[np.sort(first)[:k]]
    return [(float(values[row]), int(row)) for row in chosen]


def ask(
    index: Index,
    query: Query | None,
    limits: Limits,
    k: int = 10,
    fold: Fold = "harp",
    like: str | None = None,
    order: str | None = None,
    exact: bool = False,
) -> Answer:
    """Answer one question.

    Parameters
    ----------
    index : Index
    query : Query or None
        Near to its vectors; None asks by numbers only.
    limits : Limits
        What may answer.
    k : int
        Answers wanted; fewer come when fewer are there.
    fold : {"harp", "record", "none"}
        What counts as one answer (`sunpipe.index.fold`); ``none`` gives tiles.
    like : str, optional
        Without a query: near to these numbers (`sunpipe.index.like`).
    order : str, optional
        With neither: the column that sorts, T_REC by default; ``TOTUSJH desc``.
    exact : bool
        Compare the query with every row that may answer, instead of with those that the
        codes of the index find. Nothing else is approximate: numbers, flat indexes, and
        records of a query of several vectors are compared so anyhow.

    Raises
    ------
    UsageError
        A question that cannot be read.
    DataError
        A query of another encoder, or one whose vectors cannot be asked.
    """
    if k < 1:
        raise UsageError(f"-k {k}: ask for at least one")
    columns, records = Columns(index.table), record_codes(index)
    codes = fold_codes(index.table, fold)
    conditions = parts(columns, limits, None if query is None else query.record)
    rows = allowed(columns, conditions)
    if query is not None:
        check_encoder(index, query.encoder, query.vectors.shape[1])
        ranked = _by_vectors(index, query, k, rows, codes, fold, exact)
        about = query.about
    elif like is not None:
        near = near_to(like, columns)
        rows &= np.isfinite(near.distance)
        ranked, about = _by_numbers(columns, near.distance, k, rows, codes), near.about(records)
    else:
        values = _order(columns, order or "t_rec")
        ranked = [(float("nan"), row) for _, row in _by_numbers(columns, values, k, rows, codes)]
        about = {"kind": "numbers", "order": order or "t_rec"}
    count = {"records": len(np.unique(records[rows])), "tiles": int(rows.sum()),
             "records_in_index": len(np.unique(records)), "tiles_in_index": len(rows)}  # fmt: skip
    return Answer(hits(columns, ranked, rows, codes, records), about, count,
                  alone(conditions, records), list(dict.fromkeys(columns.named)),
                  keyword_names(columns))  # fmt: skip


def search(
    index: Index,
    query: Query,
    k: int,
    where: str | None = None,
    include_self: bool = False,
    per: Literal["record", "tile"] = "record",
) -> list[dict[str, Any]]:
    """The hits of `ask`, nearest first, every record (or tile) by itself."""
    limits = Limits(where=where, include_self=include_self)
    return ask(index, query, limits, k, "none" if per == "tile" else "record").hits
