"""AIA full-disk images, level 1 or 1.5, to DN/s on a Sun of fixed size, north up."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preprocess.calibration.cards import result_cards
from preprocess.calibration.degradation import degradation
from preprocess.calibration.disk import check_full_disk, disk_mask, geometry, target_map
from preprocess.calibration.image import DiskImage, DiskSettings
from preprocess.calibration.judge import (
    SATURATED_DN,
    census,
    channel,
    exposure,
    instrument,
    level,
    saturated_share,
)
from preprocess.calibration.pointing import read_pointing, repoint
from preprocess.calibration.resample import resample
from preprocess.calibration.times import utc
from sunpipe.fitsfile import STRUCTURE, FitsError

if TYPE_CHECKING:
    from sunpipe.fits import Segment

PER_SECOND = ("DN/S", "DN/SEC", "DN / S", "DN S-1", "DN S^-1", "DATA NUMBER/SECOND")


def register_by_aiapy(
    data: NDArray[np.floating], header: Mapping[str, Any]
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Level 1 to 1.5 by `aiapy.calibrate.register`: north up, centred, 0.6 arcsec per pixel.

    Returns
    -------
    data : float32 ndarray
        NaN where the rotated image has no value.
    header : dict
        The cards of `header` with the new world coordinates.

    Raises
    ------
    FitsError
        ``geometry``: aiapy refuses the image.
    """
    import sunpy.map
    from aiapy.calibrate import register

    cards = {
        key: value
        for key, value in header.items()
        if not STRUCTURE.match(key) and key not in ("CHECKSUM", "DATASUM", "BSCALE", "BZERO")
    }
    with warnings.catch_warnings():
        # sunpy tells of missing or odd cards, which are no matter of the pixels.
        warnings.simplefilter("ignore")
        try:
            done = register(sunpy.map.Map(np.asarray(data, np.float32), cards), missing=np.nan)
        except ValueError as error:
            raise FitsError("geometry", f"aiapy cannot register the image: {error}") from None
    new = {str(key).upper(): value for key, value in done.meta.items()}
    # The map says its rotation by PC cards; the CROTA2 of the camera no longer holds.
    old = {key: value for key, value in header.items() if key != "CROTA2"}
    return np.asarray(done.data, np.float32), old | new | {"LVL_NUM": 1.5}


def _per_second(header: Mapping[str, Any]) -> bool:
    """Whether the pixels are divided by the exposure already."""
    unit = str(header.get("BUNIT") or header.get("PIXLUNIT") or "DN").strip().upper()
    return unit in PER_SECOND


def calibrate_aia(
    segment: Segment, settings: DiskSettings | None = None, name: str = "AIA image"
) -> DiskImage:
    """Calibrate a full-disk image of AIA.

    Pointing, rotation, scale and solar radius are set in one interpolation; then
    DN are divided by the exposure and by the loss of sensitivity since launch.
    Level 1.5 is north up already and is not registered again, only scaled.

    Parameters
    ----------
    segment : Segment
        Pixels in DN and cards, as `sunpipe.fits.read_segment` gives.
    settings : DiskSettings, optional
    name : str
        For messages.

    Returns
    -------
    DiskImage
        DN/s per pixel of the archive's image.

    Raises
    ------
    FitsError
        ``no_keywords``, ``wrong_instrument``, ``wrong_level``,
        ``wrong_wavelength``, ``exposure``, ``geometry``, ``cutout``,
        ``all_nan``, ``no_table``.
    """
    settings = settings or DiskSettings()
    header: dict[str, Any] = dict(segment.header)
    data: NDArray[Any] = segment.data
    if instrument(header) != "AIA":
        raise FitsError("wrong_instrument", f"{name} is of HMI, not of AIA")
    given, wavelength = level(header), channel(header)
    seconds, per_second = exposure(header, settings.min_exposure_s), _per_second(header)
    divisor = 1.0 if per_second else seconds
    notes: dict[str, Any] = {
        "level_in": given,
        "register": "archive" if given > 1 else settings.register,
        "pointing": "header",
        "exposure_s": seconds,
        "exposure_divided": not per_second,
    }
    if given == 1.0 and settings.pointing_table is not None:
        shape = (data.shape[0], data.shape[1])
        header, notes["pointing"] = repoint(
            header, shape, wavelength, read_pointing(settings.pointing_table)
        )
    where = geometry(header, (data.shape[0], data.shape[1]), name)
    check_full_disk(where, name)
    counted = census(data, where.centre, where.radius_pixels, SATURATED_DN)
    if counted.nan_share == 1:
        raise FitsError("all_nan", f"{name} has no valid pixel on the disk")
    notes |= {"nan_share": counted.nan_share, "saturated_share": saturated_share(header, counted)}
    if settings.degradation:
        time = utc(header.get("T_OBS")) or utc(header.get("DATE-OBS"))
        if time is None:
            raise FitsError("no_keywords", f"{name}: T_OBS = {header.get('T_OBS')!r} is no time")
        lost = degradation(wavelength, time, settings.correction_table)
        divisor *= lost.factor
        notes |= {
            "degradation": lost.factor,
            "correction_version": lost.version,
            "correction_table": lost.table,
            "correction_sha256": lost.sha256,
        }
    else:
        notes["degradation"] = None
    if given == 1.0 and settings.register == "aiapy":
        data, header = register_by_aiapy(data, header)
        where = geometry(header, (data.shape[0], data.shape[1]), name)
        notes["aiapy"] = importlib.metadata.version("aiapy")
    size, share = settings.resolution, settings.rsun_share
    out = resample(data, *target_map(where, size, share), size)
    out /= np.float32(divisor)
    if settings.occult_limb is not None:
        out[~disk_mask(size, share, settings.occult_limb)] = np.nan
    notes |= {"radius_card": where.radius_card, "scale_in": where.scale, "crota2": where.rotation}
    cards = result_cards(header, where, size, share, "DN/s", 1.5)
    return DiskImage(out, disk_mask(size, share), cards, notes)
