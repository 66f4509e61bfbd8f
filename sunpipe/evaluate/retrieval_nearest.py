"""The best tile of every group for every query, block by block of the archive.

With one number for each query and group, both protocols and all ranks are exact:
the query's own group holds only what is far enough in time, and leaving the HARP out
is leaving one column out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_archive import Archive

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
BLOCK = 512  # tiles of the archive that are compared at once
NOBODY = -1  # group of a query that no group is left out for


@dataclass(frozen=True)
class Askers:
    """The group, time and kind of Q queries; a generated one has group `NOBODY`."""

    group: Ints
    hours: Floats
    disk: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.group)


def askers(archive: Archive, positions: Ints) -> Askers:
    """Queries that are tiles of the archive."""
    return Askers(archive.group[positions], archive.hours[positions], archive.disk[positions])


def strangers(count: int) -> Askers:
    """Generated queries, for which nothing is left out."""
    return Askers(np.full(count, NOBODY), np.full(count, np.nan), np.zeros(count, bool))


def blocks(count: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover `count` rows in turn."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class Nearest:
    """Nearest tile of each of H groups to each of Q queries, of the tiles seen so far.

    Attributes
    ----------
    distance : float32 ndarray (Q, H)
        Infinite where a group has no tile that may answer.
    position : int32 ndarray (Q, H)
        Of that tile in the archive; -1 for none.
    """

    def __init__(
        self, archive: Archive, asked: Askers, exclude_hours: float,
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        self.archive, self.asked, self.exclude_hours = archive, asked, exclude_hours
        self.allowed = allowed
        shape = (len(asked), len(archive.names))
        self.distance = np.full(shape, np.inf, np.float32)
        self.position = np.full(shape, -1, np.int32)

    def _exclude(self, far: Floats32, group: int, rows: slice) -> Floats32:
        """Infinite where query and tile are the same moment of the same place."""
        asked, archive = self.asked, self.archive
        if archive.disk[rows.start] and asked.disk.any():
            mine = np.flatnonzero(asked.disk)
        else:
            mine = np.flatnonzero(asked.group == group)
        if not len(mine):
            return far
        apart = np.abs(asked.hours[mine, None] - archive.hours[rows][None])
        # A query is always the same moment as itself, whatever exclude_hours is.
        near = (apart < self.exclude_hours) | (apart == 0)
        far = far.copy()
        far[mine] = np.where(near, np.inf, far[mine])
        return far

    def see(self, distances: Floats32, rows: slice) -> None:
        """Take notice of a block: distances (Q, B) to the tiles ``archive[rows]``."""
        group = self.archive.group[rows]
        edges = np.r_[0, np.flatnonzero(np.diff(group)) + 1, len(group)]
        for start, end in pairwise(edges.tolist()):
            part = slice(rows.start + start, rows.start + end)
            code = int(group[start])
            far = self._exclude(distances[:, start:end], code, part)
            if self.allowed is not None:
                far = np.where(self.allowed[part][None], far, np.inf)
            best = far.argmin(axis=1)
            value = np.take_along_axis(far, best[:, None], axis=1)[:, 0]
            better = value < self.distance[:, code]
            self.distance[better, code] = value[better]
            self.position[better, code] = part.start + best[better]

    def others(self) -> Floats32:
        """Distances (Q, H) without each query's own group."""
        far = self.distance.copy()
        mine = np.flatnonzero(self.asked.group != NOBODY)
        far[mine, self.asked.group[mine]] = np.inf
        return far

    def match(self, other_group: bool) -> tuple[Floats, Ints]:
        """Distance (Q,) and position (Q,) of the best tile; infinite and -1 for none.

        Parameters
        ----------
        other_group : bool
            Whether the query's own group is left out altogether.
        """
        far = self.others() if other_group else self.distance
        best = far.argmin(axis=1)[:, None]
        value = np.take_along_axis(far, best, axis=1)[:, 0].astype(np.float64)
        place = np.take_along_axis(self.position, best, axis=1)[:, 0].astype(np.int64)
        return value, np.where(np.isfinite(value), place, -1)

    def own_rank(self) -> Floats:
        """Rank (Q,) of the query's own group among all groups; ties share their ranks.

        NaN for a query whose group has no tile at another time.
        """
        rank = np.full(len(self.asked), np.nan)
        mine = np.flatnonzero(self.asked.group != NOBODY)
        own = self.distance[mine, self.asked.group[mine]]
        others = self.others()[mine]
        ahead = (others < own[:, None]).sum(axis=1)
        ties = (others == own[:, None]).sum(axis=1)
        rank[mine] = np.where(np.isfinite(own), 1 + ahead + ties / 2, np.nan)
        return rank


def scan(found: Nearest, distances: Callable[[slice], Floats32]) -> Nearest:
    """Show the whole archive to `found`, asking `distances` for each block."""
    for rows in blocks(len(found.archive)):
        found.see(distances(rows), rows)
    return found


def euclidean(queries: Floats32, tiles: Floats32) -> Floats32:
    """Distances (Q, B) of float32 rows, as ``|a|^2 - 2 a.b + |b|^2``, exact to 3e-4 of ``|a|``."""
    square = (queries**2).sum(axis=1)[:, None] - 2 * (queries @ tiles.T) + (tiles**2).sum(axis=1)
    return np.sqrt(np.maximum(square, 0))
