"""Writing one shard: HDF5 with a checksum per chunk, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from sunpipe.hdf5 import Sink, hdf5_sink
from sunpipe.shards.schema import SCHEMA

LIBVER = ("v110", "v110")  # a fixed file format, so that bytes do not depend on the library
FILTER = "bitshuffle+lz4"


def write_shard(
    path: Path,
    pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]],
    count: int,
    side: int,
    dtype: str,
    attributes: dict[str, Any],
    storage: str = "chunked",
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
    with hdf5_sink(path, libver=LIBVER) as (file, sink):
        _fill(file, sink, pairs, count, side, dtype, attributes)


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
        sink.check()
    assert written == count, f"{written} images for a shard of {count}"
