"""Reading every image of a shard again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sunpipe.shards.guard import check_shard
from sunpipe.shards.schema import DatasetInfo

Report = Callable[[str], None]
LIMITS = {"Gauss": 10000.0, "DN/s": 1e6}  # no photospheric field, no AIA rate is stronger
BATCH = 16


def check_images(path: Path, info: DatasetInfo, shares: list[float], report: Report) -> None:
    """Read every image; `shares` are the invalid shares that the records state."""
    import h5py
    import hdf5plugin  # noqa: F401  registers bitshuffle

    shape = (len(shares), len(info.channels), info.resolution, info.resolution)
    with h5py.File(path, "r") as file:
        check_shard(file, path.name)
        images, masks = file["images"], file["mask"]
        if images.shape != shape or images.dtype != info.dtype or masks.dtype != np.uint8:
            report(f"{path.name}: {images.shape} {images.dtype}, expected {shape} {info.dtype}")
            return
        if float(file.attrs["scale"]) != info.scale:
            report(f"{path.name}: scale is {file.attrs['scale']}, dataset.json says {info.scale}")
        for start in range(0, len(shares), BATCH):
            field = images[start : start + BATCH].astype(np.float32) * np.float32(info.scale)
            mask = masks[start : start + BATCH]
            for place in range(len(mask)):
                name = f"{path.name} image {start + place}"
                _check_mask(field[place], mask[place], shares[start + place], name, report)
                for channel, unit in enumerate(info.units):
                    top = float(np.abs(field[place, channel]).max())
                    if not top <= LIMITS[unit]:  # NaN as well
                        report(f"{name}: a value of {top:g} is no {unit}")


def _check_mask(
    field: NDArray[np.float32], mask: NDArray[np.uint8], share: float, name: str, report: Report
) -> None:
    if not np.isin(mask, (0, 1)).all():
        report(f"{name}: the mask is not 0 or 1")
    elif abs(1.0 - mask.mean() - share) > 1e-9:
        report(f"{name}: {1.0 - mask.mean():.4f} is invalid, its record says {share:.4f}")
    if np.abs(field[:, mask == 0]).max(initial=0.0) != 0:
        report(f"{name}: an invalid pixel has a value")
