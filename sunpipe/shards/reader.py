"""Random access to a dataset's images in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from sunpipe.errors import DataError
from sunpipe.shards.guard import check_shard
from sunpipe.shards.schema import DatasetInfo, read_info
from sunpipe.shards.stored import restore

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray


class ShardReader:
    """Reads images by dataset row.

    HDF5 handles are opened lazily, once per process: they must not be shared
    across a fork.

    Parameters
    ----------
    folder : Path
        ``shards/<dataset>``.
    splits : sequence of str, optional
        Keep only rows of these splits.

    Attributes
    ----------
    info : DatasetInfo
    rows : ndarray of int64, shape (M,)
        Dataset rows that are served, in order.
    """

    def __init__(self, folder: Path, splits: Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.info: DatasetInfo = read_info(self.folder)
        table = pq.read_table(self.folder / "records.parquet")
        self.records = table
        split = np.asarray(table["split"].to_pylist())
        keep = np.ones(len(split), bool) if splits is None else np.isin(split, list(splits))
        self.rows: NDArray[np.int64] = np.flatnonzero(keep).astype(np.int64)
        self._shard = np.asarray(table["shard"], dtype=np.int64)
        self._position = np.asarray(table["position"], dtype=np.int64)
        self._handles: dict[int, h5py.File] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    @property
    def pixel_cm(self) -> NDArray[np.float64]:
        """Pixel size in cm of every dataset row."""
        return np.asarray(self.records["pixel_cm"], dtype=np.float64)

    def _file(self, shard: int) -> h5py.File:
        if shard not in self._handles:
            import h5py
            import hdf5plugin  # noqa: F401  registers bitshuffle

            path = self.folder / f"shard-{shard:05d}.h5"
            try:
                handle = h5py.File(path, "r")
            except OSError as error:
                raise DataError(f"cannot open {path}: {error}; run sunpipe verify") from None
            check_shard(handle, path.name)
            self._handles[shard] = handle
        return self._handles[shard]

    def _read(self, dataset: str, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[Any]:
        wanted = np.asarray(rows, dtype=np.int64)
        parts: list[NDArray[Any]] = []
        for row in wanted:
            shard, position = int(self._shard[row]), int(self._position[row])
            try:
                parts.append(self._file(shard)[dataset][position])
            except OSError as error:
                raise DataError(
                    f"{self.folder / f'shard-{shard:05d}.h5'} is damaged at image {position}"
                    f" ({error}); run sunpipe verify"
                ) from None
        return np.stack(parts)

    def images(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Images of dataset rows, float32 (B, C, H, W), physical units, 0 where invalid."""
        return restore(self._read("images", rows), self.info.scale)

    def masks(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Validity of dataset rows, bool (B, H, W), True where valid."""
        return self._read("mask", rows).astype(bool)

    def close(self) -> None:
        """Close the open shards."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
