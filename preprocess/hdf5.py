"""Writing one shard: HDF5 with a checksum per chunk, the same bytes every time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from sunpipe.files import atomic_path
from sunpipe.shards.schema import SCHEMA

LIBVER = ("v110", "v110")  # a fixed file format, so that bytes do not depend on the library
FILTER = "bitshuffle+lz4"


class Sink:
    """A file for HDF5 to write to that keeps the first error instead of raising it.

    HDF5 does not survive a full disk: closing the file writes again, fails
    again, and may end the process. So it is told that all is well, and
    `check` raises the error where it can be handled.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self.error: OSError | None = None
        self.seek = handle.seek
        self.tell = handle.tell
        self.read = handle.read
        self.readinto = handle.readinto  # type: ignore[attr-defined]

    def write(self, data: memoryview) -> int:
        """Write, unless a write failed before."""
        if self.error is None:
            try:
                self._handle.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        if self.error is None:
            try:
                return self._handle.truncate(size)
            except OSError as error:
                self.error = error
        return size or 0

    def flush(self) -> None:
        """Hand everything to the system."""
        if self.error is None:
            try:
                self._handle.flush()
            except OSError as error:
                self.error = error

    def check(self, path: Path) -> None:
        """Raise the error that was kept; `path` is the file it is about."""
        if self.error is not None:
            number = self.error.errno or errno.EIO
            raise OSError(number, os.strerror(number), str(path))


def write_shard(
    path: Path,
    pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]],
    count: int,
    side: int,
    dtype: str,
    attributes: dict[str, Any],
) -> None:
    """Write images and masks of one shard, atomically.

    Parameters
    ----------
    path : Path
    pairs : iterable of (image (C, H, W), mask (H, W))
        `count` of them, as stored.
    side : int
        H = W.
    dtype : str
        Of the images.
    attributes : dict
        ``channels``, ``units``, ``scale`` and ``max_error``.
    """
    with atomic_path(path) as temporary, open(temporary, "w+b") as handle:
        sink = Sink(handle)
        with h5py.File(sink, "w", libver=LIBVER) as file:
            _fill(file, sink, pairs, count, side, dtype, attributes)
        sink.flush()
        sink.check(path)


def _fill(
    file: h5py.File,
    sink: Sink,
    pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]],
    count: int,
    side: int,
    dtype: str,
    attributes: dict[str, Any],
) -> None:
    channels = len(attributes["channels"])
    codec = hdf5plugin.Bitshuffle(cname="lz4")
    file.attrs["schema"] = SCHEMA
    file.attrs["filter"] = FILTER
    file.attrs["filter_id"] = codec.filter_id
    for key, value in attributes.items():
        file.attrs[key] = value
    images = file.create_dataset(
        "images", (count, channels, side, side), dtype, chunks=(1, channels, side, side),
        fletcher32=True, track_times=False, **codec,
    )  # fmt: skip
    masks = file.create_dataset(
        "mask", (count, side, side), np.uint8, chunks=(1, side, side),
        fletcher32=True, track_times=False, **codec,
    )  # fmt: skip
    written = 0
    for position, (image, mask) in enumerate(pairs):
        images[position] = image
        masks[position] = mask
        written = position + 1
        if sink.error is not None:
            return
    assert written == count, f"{written} images for a shard of {count}"
