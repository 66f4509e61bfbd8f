"""Reading every image of a shard again: its checksum, its row's digest, its mask, its flux."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from preprocess.dataset.check_table import Faults, Numbers, Records, Report, Whole
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.guard import SUMS
from sunpipe.shards.schema import DatasetInfo, shard_name
from sunpipe.shards.shardfile import open_shard
from sunpipe.shards.stored import LIMITS, Stored, pixel_digest, restore


@dataclass(frozen=True)
class Stated:
    """What the rows of one shard say of its images, by position.

    Attributes
    ----------
    rows : list of str
        Each row in words.
    pixels : list of str
        Digests.
    nan_share, flux, area : ndarray of float64
        `flux` in Mx (NaN for disks), `area` of a native pixel in cm^2.
    corner : ndarray of int64, shape (N, 2)
        First native row and column.
    """

    rows: list[str]
    pixels: list[str]
    nan_share: Numbers
    flux: Numbers
    area: Numbers
    corner: NDArray[np.int64]


def stated_of(records: Records, settings: ShardSettings) -> dict[int, Any]:
    """Shard number to a function that gives its `Stated`."""
    rows = records.rows
    shard, position = rows.whole("shard"), rows.whole("position")
    order = np.lexsort((position, shard))
    numbers, starts = np.unique(shard[order], return_index=True)
    pixels, shares, flux = rows.column("pixels"), rows.numbers("nan_share"), rows.numbers("flux_mx")
    area = (rows.numbers("pixel_cm") / settings.reduce) ** 2
    corner = np.stack([rows.whole("tile_y"), rows.whole("tile_x")], axis=1)

    def give(which: Whole) -> Stated:
        return Stated([records.row(n) for n in which.tolist()], pixels.take(which).to_pylist(),
                      shares[which], flux[which], area[which], corner[which])  # fmt: skip

    stops = [*starts[1:].tolist(), len(order)]
    return {
        int(number): lambda start=start, stop=stop: give(order[start:stop])
        for number, start, stop in zip(numbers, starts.tolist(), stops, strict=True)
    }


def _check_attributes(path: Path, info: DatasetInfo, report: Report) -> None:
    """What the shard says about itself against the description of the dataset."""
    with h5py.File(path, "r") as file:
        found = {"scale": float(file.attrs["scale"]), "channels": list(file.attrs["channels"]),
                 "units": list(file.attrs["units"])}  # fmt: skip
        storage = "contiguous" if SUMS in file else "chunked"
    for key, value in {**found, "storage": storage}.items():
        if value != getattr(info, key):
            report(f"{path.name}: {key} is {value}, dataset.json says {getattr(info, key)}")


def check_images(
    folder: Path,
    number: int,
    info: DatasetInfo,
    settings: ShardSettings,
    stated: Stated,
    faults: Faults,
    report: Report,
) -> None:
    """Read every image of shard `number`.

    Raises
    ------
    DataError
        At the first image whose checksum is wrong.
    """
    path = folder / shard_name(number)
    shard = open_shard(path)
    shape = (len(info.channels), info.resolution, info.resolution)
    images, count = shard.members["images"], len(stated.rows)
    if (len(images.offsets), images.shape, images.dtype) != (count, shape, info.dtype):
        report(f"{path.name}: {len(images.offsets)} {images.dtype} images of {images.shape},"
               f" expected {count} {info.dtype} of {shape}")  # fmt: skip
        return
    _check_attributes(path, info, report)
    stored, mask = np.empty(shape, images.dtype), np.empty(shape[1:], np.uint8)
    for position in range(count):
        shard.read_into("images", position, stored)
        shard.read_into("mask", position, mask)
        values = restore(stored, info.scale)
        found = [*_mask_faults(stored, mask, float(stated.nan_share[position]))]
        found += _value_faults(values, info)
        if pixel_digest(stored, mask) != stated.pixels[position]:
            found.append(("images that are not those of their rows",
                          "its pixels are not those that its row was written for"))  # fmt: skip
        if settings.is_patch and not found:
            found += _flux_faults(values[0], mask, position, stated, settings)
        for kind, text in found:
            where = f"{path.name} image {position}, {stated.rows[position]}"
            faults.add(f"shards: {kind}", f"{where}: {text}")


def _value_faults(values: NDArray[np.float32], info: DatasetInfo) -> list[tuple[str, str]]:
    found = []
    for channel, unit in enumerate(info.units):
        top = float(np.abs(values[channel]).max())
        most = LIMITS[unit] * (1 + info.max_relative_error) + info.max_error
        if not top <= most * (1 + 1e-6):  # NaN as well
            found.append(("values outside of physics", f"a value of {top:g} is no {unit}"))
    return found


def _mask_faults(
    stored: NDArray[np.generic], mask: NDArray[np.uint8], share: float
) -> list[tuple[str, str]]:
    found = []
    if not np.isin(mask, (0, 1)).all():
        found.append(("masks that are not 0 or 1", "the mask is not 0 or 1"))
    elif abs(1.0 - mask.mean() - share) > 1e-9:
        text = f"{1.0 - mask.mean():.4f} is invalid, nan_share says {share:.4f}"
        found.append(("masks that are not those of their rows", text))
    if (stored[:, mask == 0] != 0).any():
        found.append(("invalid pixels with values", "an invalid pixel has a value"))
    return found


def _flux_faults(
    field: NDArray[np.float32],
    mask: NDArray[np.uint8],
    position: int,
    stated: Stated,
    settings: ShardSettings,
) -> list[tuple[str, str]]:
    low, high = flux_bounds(field, mask, stated.corner[position], settings)
    area, flux = float(stated.area[position]), float(stated.flux[position])
    if low * area * (1 - 1e-9) <= flux <= high * area * (1 + 1e-9):
        return []
    text = f"flux_mx is {flux:.6g}, its pixels allow {low * area:.6g} to {high * area:.6g}"
    return [("fluxes that their pixels do not have", text)]


def flux_bounds(
    field: NDArray[np.float32],
    mask: NDArray[np.uint8],
    corner: NDArray[np.int64],
    settings: ShardSettings,
) -> tuple[float, float]:
    """Least and largest unsigned flux that the native pixels of a stored tile can have.

    Native pixels as stored are known up to their rounding e: those of at least
    floor + e count with at least |B| - e, those of at least floor - e may count
    with |B| + e. Of a mean m of n pixels only the lower bound is sharp: they
    have n |m| or more, of which n floor can lie below the floor, and n is at
    least half a block. What is invalid in one channel may count in the first.

    Parameters
    ----------
    field : float32 ndarray (S, S)
        First channel, gauss.
    mask : uint8 ndarray (S, S)
    corner : (y, x)
        First native row and column of the tile; tells the padding.

    Returns
    -------
    low, high : float
        Gauss times native pixels.
    """
    floor, block = settings.flux_floor_g, settings.reduce
    error, relative = Stored(settings.dtype, settings.step).errors
    size = np.abs(field[mask == 1].astype(np.float64))
    slack = np.maximum(error, relative * size) * (1 + 1e-6) + 1e-6
    if block > 1:
        half = (block * block + 1) // 2
        low = half * float(np.maximum(size - slack - floor, 0).sum())
        return low, LIMITS["Gauss"] * (block * block) * mask.size
    low = float((size - slack)[size - slack >= floor].sum())
    high = float((size + slack)[size + slack >= floor].sum())
    return low, high + LIMITS["Gauss"] * _hidden(mask, corner)


def _hidden(mask: NDArray[np.uint8], corner: NDArray[np.int64]) -> int:
    """Invalid pixels that are no padding."""
    inside = mask
    for axis, first in enumerate(corner.tolist()):
        if first < 0:  # centred: as much padding behind, or one less
            last = inside.shape[axis] + first
            stop = last + 1 if np.take(inside, last, axis=axis).any() else last
            inside = np.take(inside, range(-first, stop), axis=axis)
    return int((inside == 0).sum())
