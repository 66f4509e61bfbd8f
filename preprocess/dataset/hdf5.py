"""Writing one shard: HDF5 with a checksum per image, the same bytes every time.

``chunked``: one chunk per image, bitshuffle + LZ4 + Fletcher32. ``contiguous``:
the images as they are, one behind the other from a page boundary on, with two
sums of each in ``/image_sums``; masks stay chunked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from sunpipe.hdf5 import Sink, hdf5_sink
from sunpipe.shards.guard import SUMS
from sunpipe.shards.schema import SCHEMA
from sunpipe.shards.sums import image_sums

LIBVER = ("v110", "v110")  # a fixed file format, so that bytes do not depend on the library
FILTER = "bitshuffle+lz4"
STORAGES = ("chunked", "contiguous")
PAGE = 4096


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
    storage : str
        ``chunked``, or ``contiguous`` for disks that are faster than LZ4.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage is {' or '.join(STORAGES)}, not {storage!r}")
    # Only the contiguous images are as large as the threshold: nothing else is aligned.
    place = {"alignment_threshold": 1 << 16, "alignment_interval": PAGE}
    options = place if storage == "contiguous" else {}
    with hdf5_sink(path, libver=LIBVER, **options) as (file, sink):
        _fill(file, sink, pairs, count, side, dtype, {**attributes, "storage": storage})


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
    checked = {"fletcher32": True, "track_times": False}
    shape = (count, channels, side, side)
    plain = attributes["storage"] == "contiguous"
    if plain:
        # every byte is written below; filling them before would write twice
        images = file.create_dataset("images", shape, dtype, track_times=False, fill_time="never")
    else:
        images = file.create_dataset("images", shape, dtype, chunks=(1, *shape[1:]),
                                     **checked, **codec)  # fmt: skip
    masks = file.create_dataset("mask", (count, side, side), np.uint8, chunks=(1, side, side),
                                **checked, **codec)  # fmt: skip
    sums = np.zeros((count, 2), np.uint64)
    written = 0
    for position, (image, mask) in enumerate(pairs):
        images[position] = image
        masks[position] = mask
        if plain:
            sums[position] = image_sums(np.asarray(image, images.dtype))
        written = position + 1
        sink.check()
    assert written == count, f"{written} images for a shard of {count}"
    if plain:
        file.create_dataset(SUMS, data=sums, chunks=sums.shape, **checked)
