"""Near-duplicates in time are one answer: tiles of a record, records of a HARP.

A HARP is known by series and HARPNUM, since near-real-time and definitive HARPs are numbered
apart. Whole disks have no HARP; theirs is the day of T_REC in the scale of the series: the
Sun turns by 13 degrees a day, so that disks of one day show the same regions.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.index.columns import by_record
from sunpipe.index.nearest import nearest_tiles
from sunpipe.index.store import Index

Fold = Literal["harp", "record", "none"]
TOGETHER = 3  # times that all open queries ask for more tiles before each goes its own way
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Ranked = list[tuple[float, int]]  # (distance, row), nearest first


def keys(table: pa.Table) -> pa.DictionaryArray:
    """For every row what it is folded by under ``harp``: ``series|HARPNUM``, or ``series|day``."""
    first, codes = by_record(table)
    rows = table.select(["record", "t_rec", "harpnum"]).take(pa.array(first))
    series = pc.replace_substring_regex(rows["record"], r"\[.*$", "")
    day = pc.replace_substring_regex(pc.utf8_slice_codeunits(rows["t_rec"], 0, 10), "-", ".")
    names = pc.coalesce(pc.cast(rows["harpnum"], pa.string()), day, rows["record"])
    joined = pc.binary_join_element_wise(series, names, "|").combine_chunks()
    return joined.dictionary_encode().take(pa.array(codes))


def key_of(record: str) -> str | None:
    """The same of a record-set string ``series[HARPNUM][T_REC]`` or ``series[T_REC]...``."""
    found = re.match(r"([^\[\]]+)\[(?:(\d+)\]\[|(\d{4})[-.](\d\d)[-.](\d\d))", record)
    if found is None:
        return None
    series, harp, *day = found.groups()
    return f"{series}|{harp or '.'.join(day)}"


def fold_codes(table: pa.Table, fold: Fold) -> Ints:
    """A number for each row, equal for rows that are one answer; from 0 on."""
    if fold == "none":
        return np.arange(len(table), dtype=np.int64)
    if fold == "record":
        return by_record(table)[1]
    return np.asarray(keys(table).indices, dtype=np.int64)


def nearest_groups(
    index: Index, vectors: NDArray[np.float32], k: int, allowed: Bools, codes: Ints
) -> list[Ranked]:
    """For each vector alone: its `k` nearest groups, each by its nearest tile.

    Tiles come nearest first, so a group's first tile is its nearest. More tiles are asked
    for until `k` groups are among them; a query that is surrounded by very many tiles of few
    groups then asks again without those groups. It ends with `k` groups, or with all.

    Returns
    -------
    list of lists of (distance, row)
    """
    best: list[dict[int, tuple[float, int]]] = [{} for _ in vectors]
    open_, ask, available = list(range(len(vectors))), 4 * k, int(allowed.sum())
    for _ in range(TOGETHER):
        if not open_:
            break
        far, rows = nearest_tiles(index, vectors[open_], ask, allowed)
        for place, number in enumerate(open_):
            _add(best[number], far[place], rows[place], codes)
        open_ = [number for number in open_ if len(best[number]) < k and ask < available]
        ask *= 4
    for number in open_:
        unseen = np.ones(int(codes.max()) + 1, bool)
        while len(best[number]) < k:
            unseen[list(best[number])] = False
            left = allowed & unseen[codes]
            before = len(best[number])
            far, rows = nearest_tiles(index, vectors[number : number + 1], ask, left)
            _add(best[number], far[0], rows[0], codes)
            if len(best[number]) == before:
                break
    return [list(found.values())[:k] for found in best]


def _add(
    best: dict[int, tuple[float, int]], far: NDArray[np.float64], rows: Ints, codes: Ints
) -> None:
    for distance, row in zip(far.tolist(), rows.tolist(), strict=True):
        if row >= 0:
            best.setdefault(int(codes[row]), (distance, row))


def first_of_groups(ranked: Ranked, k: int, codes: Ints) -> Ranked:
    """The first of every group in a ranking, at most `k`."""
    found: dict[int, tuple[float, int]] = {}
    for distance, row in ranked:
        found.setdefault(int(codes[row]), (distance, row))
        if len(found) == k:
            break
    return list(found.values())


def sizes(allowed: Bools, codes: Ints, records: Ints) -> tuple[Ints, Ints]:
    """Allowed records and tiles of every group.

    Parameters
    ----------
    codes, records : int64 ndarray (N,)
        Group and record of every row.
    """
    groups = int(codes.max(initial=-1)) + 1
    mine = np.flatnonzero(allowed)
    tiles = np.bincount(codes[mine], minlength=groups)
    pairs = np.unique(codes[mine] * (records.max(initial=0) + 1) + records[mine])
    owners = pairs // (records.max(initial=0) + 1)
    return np.bincount(owners, minlength=groups), tiles
