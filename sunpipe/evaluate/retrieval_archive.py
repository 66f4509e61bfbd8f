"""What may answer and who asks: rows of an embedding in the order of their HARP and time. No torch.

A dataset of full disks has no HARP: there a day takes its place, and what is close in
time is left out whatever day it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sunpipe.embed.store import EmbeddingInfo, read_embedding, read_metadata, read_vectors
from sunpipe.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Archive:
    """The N tiles that may answer, sorted by group, time and place.

    Attributes
    ----------
    info : EmbeddingInfo
    vectors : float32 ndarray (N, dim)
        As the encoder gave them.
    places : int64 ndarray (N,)
        Row of each in the embedding's metadata, and so in an index built from it.
    rows : int64 ndarray (N,)
        Row of each in the dataset.
    group : int64 ndarray (N,)
        0 .. H - 1, rising: the HARP, or the day of a disk.
    names : list of str
        Of the groups.
    hours : float64 ndarray (N,)
        Time since 1970 as T_REC writes it.
    disk : bool ndarray (N,)
        Whether the row has no HARP.
    train : bool ndarray (N,)
        Whether the row is of the training split.
    records : list of str
        Record-set strings (N).
    total : int
        Tiles in the embedding.
    """

    info: EmbeddingInfo
    vectors: NDArray[np.float32]
    places: Ints
    rows: Ints
    group: Ints
    names: list[str]
    hours: Floats
    disk: Bools
    train: Bools
    records: list[str]
    total: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def unit(self) -> str:
        """What a group is."""
        return "day" if self.disk.all() else "HARP"


def hours_of(t_rec: pa.ChunkedArray) -> Floats:
    """Hours since 1970 of T_REC, ``2011.02.15_02:00:00_TAI`` or ``2011-02-15T02:00:00Z``.

    Only differences within one series are used, so TAI and UTC are read alike.
    """
    text = np.asarray(t_rec.to_pylist(), dtype="U19")
    day = np.char.replace(np.array([each[:10] for each in text], "U10"), ".", "-")
    clock = [each[11:19] for each in text]
    seconds = [int(each[:2]) * 3600 + int(each[3:5]) * 60 + int(each[6:8]) for each in clock]
    return day.astype("datetime64[D]").astype(np.float64) * 24 + np.array(seconds) / 3600


def _groups(table: pa.Table) -> tuple[NDArray[np.str_], Bools]:
    """Name of each row's group, and whether the row has no HARP."""
    harps, times = table["harpnum"].to_pylist(), table["t_rec"].to_pylist()
    names = [str(harp) if harp is not None else f"day {time[:10]}"
             for harp, time in zip(harps, times, strict=True)]  # fmt: skip
    return np.array(names), np.array([harp is None for harp in harps])


def spread(count: int, most: int) -> Ints:
    """At most `most` of `count` numbers, evenly spaced."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def read_archive(folder: Path, most: int) -> Archive:
    """Read an embedding, or `most` of its tiles spread evenly over groups and times.

    Raises
    ------
    DataError
        No complete embedding, an altered file, or fewer than two groups.
    """
    info = read_embedding(folder)
    table = read_metadata(folder, info)
    named, disk = _groups(table)
    names, codes = np.unique(named, return_inverse=True)
    if len(names) < 2:
        raise DataError(f"{folder} holds one HARP; a search needs others to choose from")
    hours = hours_of(table["t_rec"])
    across, down = (np.asarray(table[key], np.int64) for key in ("tile_x", "tile_y"))
    order = np.lexsort((across, down, hours, codes))
    chosen = order[spread(len(order), most)]
    vectors = np.empty((len(chosen), info.dim), np.float32)
    start = 0
    for part in read_vectors(folder, info):
        inside = (chosen >= start) & (chosen < start + len(part))
        vectors[inside] = part[chosen[inside] - start]
        start += len(part)
    kept, group = np.unique(codes[chosen], return_inverse=True)
    return Archive(
        info=info, vectors=vectors, places=chosen.astype(np.int64),
        rows=np.asarray(table["row"], np.int64)[chosen], group=group.astype(np.int64),
        names=[str(names[code]) for code in kept], hours=hours[chosen], disk=disk[chosen],
        train=np.array(table["split"].to_pylist())[chosen] == "train",
        records=[table["record"][int(row)].as_py() for row in chosen], total=len(table),
    )  # fmt: skip


def choose(archive: Archive, allowed: Bools, count: int) -> Ints:
    """Up to `count` allowed positions, as equally many of each group as there are.

    Groups with few tiles give all of theirs; within a group they are evenly spaced
    over times and places. Nothing is random.
    """
    mine = [np.flatnonzero(allowed & (archive.group == code))
            for code in np.unique(archive.group[allowed])]  # fmt: skip
    left, share = min(count, int(allowed.sum())), dict[int, int]()
    for place in sorted(range(len(mine)), key=lambda number: len(mine[number])):
        share[place] = min(len(mine[place]), -(-left // (len(mine) - len(share))))
        left -= share[place]
    parts = [rows[spread(len(rows), share[place])] if share[place] else rows[:0]
             for place, rows in enumerate(mine)]  # fmt: skip
    return np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
