"""Random access to a dataset's images, stored or in physical units."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.shards.schema import DatasetInfo, read_info, shard_name
from sunpipe.shards.shardfile import ShardFile, open_shard
from sunpipe.shards.stored import restore

if TYPE_CHECKING:
    from sunpipe.shards.cache import NodeCache

MAX_OPEN = 512  # shards; half of the files that a process may usually have open

Rows = Sequence[int] | NDArray[np.int64]


class ShardReader:
    """Reads images by dataset row, from any number of threads and processes.

    Parameters
    ----------
    folder : Path
        ``shards/<dataset>``.
    splits : sequence of str, optional
        Keep only rows of these splits.
    check : bool
        Compare uncompressed images with their sums (compressed chunks are
        always checked). Without it a flipped bit goes unseen.
    cache : NodeCache, optional
        Where copies of shards on a disk of this node may be found.

    Attributes
    ----------
    info : DatasetInfo
    rows : ndarray of int64, shape (M,)
        Dataset rows that are served, in order.
    """

    def __init__(
        self,
        folder: Path,
        splits: Sequence[str] | None = None,
        check: bool = True,
        cache: NodeCache | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.info: DatasetInfo = read_info(self.folder)
        self.check, self.cache = check, cache
        table = self._table(["split", "shard", "position"])
        count = table.num_rows
        if splits is None:
            self.rows: NDArray[np.int64] = np.arange(count, dtype=np.int64)
        else:
            wanted = pc.is_in(table["split"], pa.array(list(splits), pa.string()))
            self.rows = np.flatnonzero(wanted.to_numpy()).astype(np.int64)
        # int32: at 10^7 rows every rank holds 80 MB of this and not 160
        self._shard = table["shard"].to_numpy().astype(np.int32)
        self._position = table["position"].to_numpy().astype(np.int32)
        self._forget()

    def _table(self, columns: list[str] | None = None) -> pa.Table:
        path = self.folder / "records.parquet"
        try:
            return pq.read_table(path, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot read {path}: {error}; run sunpipe verify") from None

    def _forget(self) -> None:
        self._open: OrderedDict[int, tuple[ShardFile, bool]] = OrderedDict()
        self._lock, self._pid = threading.Lock(), os.getpid()

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(self.__dict__)
        for name in ("_open", "_lock", "_pid", "records"):
            kept.pop(name, None)
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    @cached_property
    def records(self) -> pa.Table:
        """``records.parquet``, all columns."""
        return self._table()

    @property
    def pixel_cm(self) -> NDArray[np.float64]:
        """Pixel size in cm of every dataset row."""
        return np.asarray(self._table(["pixel_cm"])["pixel_cm"], dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        side = self.info.resolution
        return len(self.info.channels), side, side

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type of an image."""
        return np.dtype(self.info.dtype)

    def shards(self) -> list[int]:
        """Numbers of the shards that hold the rows that are served."""
        return [int(number) for number in np.unique(self._shard[self.rows])]

    def path(self, shard: int) -> Path:
        """File of a shard, where all nodes see it."""
        return self.folder / shard_name(shard)

    def digest(self, shard: int) -> str:
        """SHA-256 of a shard, as published."""
        try:
            return self.info.shards[self.path(shard).name]
        except KeyError:
            raise DataError(f"{self.path(shard).name} is no part of {self.folder}") from None

    def _file(self, shard: int) -> tuple[ShardFile, bool]:
        """A shard, and whether it is a copy on this node."""
        if self._pid != os.getpid():
            self._forget()  # after a fork the lock may be held by a thread that is not here
        with self._lock:
            found, local = self._open.get(shard, (None, False))
            if self.cache is not None and not local and self.cache.has(self.digest(shard)):
                kept = self.cache.open(self.digest(shard))
                found, local = (kept, True) if kept is not None else (found, local)
            if found is None:
                found = open_shard(self.path(shard))
            self._open[shard] = found, local
            self._open.move_to_end(shard)
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)  # closed when the last thread has read from it
            return found, local

    def read_into(self, member: str, row: int, target: NDArray[Any]) -> None:
        """Read one row into memory of the caller, as stored.

        Parameters
        ----------
        member : str
            ``images`` or ``mask``.
        row : int
            Dataset row.
        target : ndarray
            C-contiguous, (C, H, W) of the stored type, or (H, W) uint8.

        Raises
        ------
        DataError
            Names the shard and the image that is damaged.
        """
        shard, position = int(self._shard[row]), int(self._position[row])
        file, local = self._file(shard)
        try:
            file.read_into(member, position, target, self.check)
        except DataError as error:
            if not local or self.cache is None:
                raise
            self.cache.drop(self.digest(shard), str(error).removesuffix("; run sunpipe verify"))
            with self._lock:
                self._open.pop(shard, None)
            self._file(shard)[0].read_into(member, position, target, self.check)

    def _read(self, member: str, rows: Rows) -> NDArray[Any]:
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.ndim != 1 or not ((wanted >= 0) & (wanted < len(self._shard))).all():
            raise IndexError(f"rows are 0 .. {len(self._shard) - 1}, not {rows}")
        images = member == "images"
        shape, dtype = (self.shape, self.dtype) if images else (self.shape[1:], np.dtype(np.uint8))
        out = np.empty((len(wanted), *shape), dtype)
        for place, row in enumerate(wanted):
            self.read_into(member, int(row), out[place])
        return out

    def stored(self, rows: Rows) -> NDArray[Any]:
        """Images of dataset rows as stored, (B, C, H, W); see ``info.scale``."""
        return self._read("images", rows)

    def images(self, rows: Rows) -> NDArray[np.float32]:
        """Images of dataset rows, float32 (B, C, H, W), physical units, 0 where invalid."""
        return restore(self._read("images", rows), self.info.scale)

    def masks(self, rows: Rows) -> NDArray[np.bool_]:
        """Validity of dataset rows, bool (B, H, W), True where valid."""
        return self._read("mask", rows) != 0

    def close(self) -> None:
        """Close the open shards."""
        self._forget()
