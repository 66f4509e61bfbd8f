"""Reading every image of a shard again, each with its checksum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from sunpipe.shards.guard import SUMS
from sunpipe.shards.schema import DatasetInfo
from sunpipe.shards.shardfile import open_shard

Report = Callable[[str], None]
LIMITS = {"Gauss": 10000.0, "DN/s": 1e6}  # no photospheric field, no AIA rate is stronger


def _check_attributes(path: Path, info: DatasetInfo, report: Report) -> None:
    """What the shard says about itself against the description of the dataset."""
    with h5py.File(path, "r") as file:
        found = {"scale": float(file.attrs["scale"]), "channels": list(file.attrs["channels"]),
                 "units": list(file.attrs["units"])}  # fmt: skip
        storage = "contiguous" if SUMS in file else "chunked"
    for key, value in {**found, "storage": storage}.items():
        if value != getattr(info, key):
            report(f"{path.name}: {key} is {value}, dataset.json says {getattr(info, key)}")


def check_images(path: Path, info: DatasetInfo, shares: list[float], report: Report) -> None:
    """Read every image; `shares` are the invalid shares that the records state.

    Raises
    ------
    DataError
        At the first image whose checksum is wrong.
    """
    shard = open_shard(path)
    shape = (len(info.channels), info.resolution, info.resolution)
    images = shard.members["images"]
    if (len(images.offsets), images.shape, images.dtype) != (len(shares), shape, info.dtype):
        report(f"{path.name}: {len(images.offsets)} {images.dtype} images of {images.shape},"
               f" expected {len(shares)} {info.dtype} of {shape}")  # fmt: skip
        return
    _check_attributes(path, info, report)
    stored, mask = np.empty(shape, images.dtype), np.empty(shape[1:], np.uint8)
    for position, share in enumerate(shares):
        shard.read_into("images", position, stored)
        shard.read_into("mask", position, mask)
        name = f"{path.name} image {position}"
        _check_mask(stored, mask, share, name, report)
        for channel, unit in enumerate(info.units):
            # the type may be too narrow for its own magnitude (int16's least value)
            top = float(np.abs(stored[channel].astype(np.float32)).max()) * info.scale
            if not top <= LIMITS[unit]:  # NaN as well
                report(f"{name}: a value of {top:g} is no {unit}")


def _check_mask(
    stored: NDArray[np.generic], mask: NDArray[np.uint8], share: float, name: str, report: Report
) -> None:
    if not np.isin(mask, (0, 1)).all():
        report(f"{name}: the mask is not 0 or 1")
    elif abs(1.0 - mask.mean() - share) > 1e-9:
        report(f"{name}: {1.0 - mask.mean():.4f} is invalid, its record says {share:.4f}")
    if (stored[:, mask == 0] != 0).any():
        report(f"{name}: an invalid pixel has a value")
