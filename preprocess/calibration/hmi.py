"""HMI full-disk magnetograms and continuum images, north up, on a Sun of fixed size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from preprocess.calibration.cards import result_cards
from preprocess.calibration.disk import check_full_disk, disk_mask, geometry, target_map
from preprocess.calibration.image import DiskImage, DiskSettings
from preprocess.calibration.judge import census, instrument
from preprocess.calibration.resample import resample
from sunpipe.fitsfile import FitsError
from sunpipe.fitsorigin import GAUSS

if TYPE_CHECKING:
    from sunpipe.fits import Segment

Kind = Literal["magnetogram", "continuum"]
CONTENT = {"magnetogram": "MAGNETOGRAM", "continuum": "CONTINUUM INTENSITY"}
UNITS = {"magnetogram": GAUSS, "continuum": ("DN/s",)}


def check_kind(header: Mapping[str, Any], kind: Kind, name: str) -> None:
    """Refuse another observable, or another unit.

    Raises
    ------
    FitsError
        ``wrong_segment`` or ``unknown_unit``.
    """
    content = header.get("CONTENT")
    if content is not None and str(content).strip().upper() != CONTENT[kind]:
        raise FitsError("wrong_segment", f"{name} holds {content}, not {CONTENT[kind]}")
    unit = header.get("BUNIT")
    if unit not in UNITS[kind]:
        raise FitsError(
            "unknown_unit", f"{name} has BUNIT = {unit!r}, not " + " or ".join(UNITS[kind])
        )


def calibrate_hmi(
    segment: Segment,
    settings: DiskSettings | None = None,
    kind: Kind = "magnetogram",
    name: str = "HMI image",
) -> DiskImage:
    """Turn a full-disk image of HMI north up and set the size of its Sun.

    The camera stands about 180 degrees from north (CROTA2); the line-of-sight
    field does not change its sign with that. Pixels off the disk become NaN.

    Parameters
    ----------
    segment : Segment
        Pixels and cards, as `sunpipe.fits.read_segment` gives.
    settings : DiskSettings, optional
        `resolution` and `rsun_share`; the rest is for AIA.
    kind : str
        ``magnetogram`` (gauss) or ``continuum`` (DN/s).
    name : str
        For messages.

    Raises
    ------
    FitsError
        ``no_keywords``, ``wrong_instrument``, ``wrong_segment``,
        ``unknown_unit``, ``geometry``, ``cutout``, ``all_nan``.
    """
    settings = settings or DiskSettings()
    if kind not in get_args(Kind):
        raise ValueError(f"kind = {kind!r} is neither magnetogram nor continuum")
    header, data = segment.header, segment.data
    if instrument(header) != "HMI":
        raise FitsError("wrong_instrument", f"{name} is of AIA, not of HMI")
    check_kind(header, kind, name)
    where = geometry(header, (data.shape[0], data.shape[1]), name)
    check_full_disk(where, name)
    counted = census(data, where.centre, where.radius_pixels)
    if counted.nan_share == 1:
        raise FitsError("all_nan", f"{name} has no valid pixel on the disk")
    size, share = settings.resolution, settings.rsun_share
    out = resample(data, *target_map(where, size, share), size)
    disk = disk_mask(size, share)
    out[~disk] = np.nan
    unit = "Gauss" if kind == "magnetogram" else "DN/s"
    notes = {
        "nan_share": counted.nan_share,
        "pointing": "header",
        "radius_card": where.radius_card,
        "scale_in": where.scale,
        "crota2": where.rotation,
    }
    cards = result_cards(header, where, size, share, unit, None)
    return DiskImage(out, disk, cards, notes)
