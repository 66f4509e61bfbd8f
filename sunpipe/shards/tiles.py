"""The tiles that a dataset would keep of a patch that is not in it, to the bit.

A question about a FITS file, to an index or to a generator, is asked in the form in
which the dataset holds its patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS, VectorRecord
from sunpipe.fitsfile import FitsError
from sunpipe.shards.cut import cut, cut_vector, missing_share, tile_flux
from sunpipe.shards.stored import Stored, restore

SAME_SCALE = 0.02  # relative difference of pixel sizes that still is the same pixel


@dataclass(frozen=True)
class Tiles:
    """What a dataset would hold of one patch.

    Attributes
    ----------
    images : ndarray of float32, shape (M, C, S, S)
        In the dataset's channels and units, 0 where invalid.
    masks : ndarray of bool, shape (M, S, S)
        True where valid.
    corners : list of [y, x]
        First native row and column of each tile.
    flux_mx : ndarray of float64, shape (M,)
        Unsigned flux above the dataset's floor, Mx.
    """

    images: NDArray[np.float32]
    masks: NDArray[np.bool_]
    corners: list[list[int]]
    flux_mx: NDArray[np.float64]


def check_scale(pixel_cm: float, wanted_cm: float, what: str, other: str) -> None:
    """Refuse a patch whose pixel is not that of `other`: it would be another physical size.

    Raises
    ------
    DataError
        The two differ by more than `SAME_SCALE`.
    """
    if not abs(pixel_cm / wanted_cm - 1) < SAME_SCALE:
        raise DataError(
            f"{what} has pixels of {pixel_cm / 1e5:.1f} km, {other} was made of"
            f" {wanted_cm / 1e5:.1f} km; ask one of the same scale"
        )


def check_channels(about: Mapping[str, Any]) -> None:
    """Refuse a dataset that no patch of Br, Bt and Bp can be a part of.

    Raises
    ------
    DataError
    """
    if others := [name for name in about["channels"] if name not in COMPONENTS]:
        raise DataError(
            f"the dataset {about['name']} has channels {', '.join(others)}, which three FITS files"
            " of Br, Bt and Bp cannot give"
        )


def kept_tiles(found: VectorRecord, about: Mapping[str, Any]) -> Tiles:
    """Cut, reduce and round a patch as a dataset does, and keep the tiles that it would keep.

    Parameters
    ----------
    found : VectorRecord
    about : mapping
        Of the dataset: `DatasetInfo` as a dict. Read are ``name``, ``channels``, ``tile``,
        ``stride``, ``reduce``, ``scale`` and, of ``settings``, ``dtype``, ``max_nan_share``,
        ``min_flux_mx`` and ``flux_floor_g``.

    Raises
    ------
    DataError
        No tile passes the dataset's rules, or the dataset has other channels.
    """
    check_channels(about)
    images, masks, corners = cut_vector(
        found.fields, about["tile"], about["stride"], about["reduce"]
    )
    rules = about["settings"]
    stored = Stored(rules.get("dtype", "float32"), about["scale"])
    channels = [COMPONENTS.index(name) for name in about["channels"]]
    tiles: list[NDArray[np.float32]] = []
    kept: list[int] = []
    fluxes: list[float] = []
    for number, (image, mask, corner) in enumerate(zip(images, masks, corners, strict=True)):
        at = (int(corner[0]), int(corner[1]))
        missing = missing_share(mask, at, found.fields.shape[1:], about["reduce"])
        native = cut(found.fields, at, about["tile"])[0]
        flux = tile_flux(native, found.pixel_cm, rules.get("flux_floor_g", 0.0))
        if not mask.any() or missing > rules.get("max_nan_share", 1.0):
            continue
        if flux < rules.get("min_flux_mx", 0.0):
            continue
        try:
            counts = stored.quantise(image)
        except FitsError:
            continue  # the dataset holds no such tile either
        tiles.append(restore(counts[channels], about["scale"]))
        kept.append(number)
        fluxes.append(flux)
    if not tiles:
        raise DataError(
            f"{found.record} has no tile that the dataset {about['name']} would keep: each is too"
            " weak (shard.min_flux_mx), too incomplete (shard.max_nan_share) or too strong"
            f" ({stored.dtype})"
        )
    return Tiles(np.stack(tiles), masks[kept], corners[kept].tolist(), np.array(fluxes))
