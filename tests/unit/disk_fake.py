"""Full-disk images of a sky that is known exactly, as the archive would hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.fits import Segment

RADIUS = 960.0
# Peak, west and north in arcsec, width in arcsec.
BLOBS = ((900.0, -300.0, 420.0, 70.0), (500.0, 510.0, -150.0, 55.0), (250.0, 40.0, -610.0, 90.0))


def sky(west: NDArray[Any], north: NDArray[Any]) -> NDArray[Any]:
    """Intensity at a place: a disk with a soft limb and three bright points."""
    image = 200.0 / (1 + np.exp((np.hypot(west, north) - RADIUS) / 25))
    for peak, x, y, width in BLOBS:
        image = image + peak * np.exp(-((west - x) ** 2 + (north - y) ** 2) / (2 * width**2))
    return image


def dipole(west: NDArray[Any], north: NDArray[Any]) -> NDArray[Any]:
    """A field of 1000 G leading and -800 G following, NaN off the disk."""
    field = np.zeros_like(west)
    for peak, x, y in ((1000.0, 420.0, 210.0), (-800.0, 300.0, 190.0)):
        field += peak * np.exp(-((west - x) ** 2 + (north - y) ** 2) / (2 * 40.0**2))
    return np.where(np.hypot(west, north) <= RADIUS, field, np.nan)


def cards(size: int = 256, rotation: float = 0.0, shift: tuple[float, float] = (0.0, 0.0),
          scale: float | None = None) -> dict[str, Any]:  # fmt: skip
    """World coordinates of an image of `size` pixels per side."""
    step = scale or 0.6 * 4096 / size
    return {
        "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec", "CUNIT2": "arcsec",
        "CRPIX1": (size + 1) / 2 + shift[0], "CRPIX2": (size + 1) / 2 + shift[1],
        "CRVAL1": 0.0, "CRVAL2": 0.0, "CDELT1": step, "CDELT2": step, "CROTA2": rotation,
        "RSUN_OBS": RADIUS, "DSUN_OBS": 149.5e9, "RSUN_REF": 696e6,
        "CRLN_OBS": 150.0, "CRLT_OBS": -0.5,
    }  # fmt: skip


def aia_cards(size: int = 256, **places: Any) -> dict[str, Any]:
    """A level-1 header of AIA 193."""
    return cards(size, **places) | {
        "TELESCOP": "SDO/AIA", "INSTRUME": "AIA_2", "WAVELNTH": 193, "WAVEUNIT": "angstrom",
        "LVL_NUM": 1.0, "EXPTIME": 2.0, "QUALITY": 0, "T_REC": "2012-06-01T00:00:02Z",
        "T_OBS": "2012-06-01T00:00:04.84Z", "DATE-OBS": "2012-06-01T00:00:03.84",
        "SAT_ROT": -1.8e-05,
    }  # fmt: skip


def hmi_cards(size: int = 256, **places: Any) -> dict[str, Any]:
    """A header of hmi.M_720s."""
    return cards(size, **places) | {
        "TELESCOP": "SDO/HMI", "INSTRUME": "HMI_SIDE1", "WAVELNTH": 6173.0, "QUALITY": 0,
        "CONTENT": "MAGNETOGRAM", "BUNIT": "Gauss", "CADENCE": 720.0,
        "T_REC": "2012.06.01_00:00:00_TAI", "T_OBS": "2012.06.01_00:00:05_TAI",
        "DATE-OBS": "2012-05-31T23:58:23.00",
    }  # fmt: skip


def places(header: dict[str, Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """West and north of every pixel in arcsec, by astropy's world coordinates."""
    from astropy.wcs import WCS

    keys = ("CTYPE", "CUNIT", "CRPIX", "CRVAL", "CDELT", "CROTA")
    world = WCS({key: value for key, value in header.items() if key[:-1] in keys})
    rows, columns = np.indices((size, size))
    west, north = world.pixel_to_world_values(columns, rows)
    west = np.where(west > 180, west - 360, west)
    unit = 3600 if str(world.wcs.cunit[0]) == "deg" else 1
    return west * unit, north * unit


def seen(header: dict[str, Any], size: int = 256, what: Any = sky) -> Segment:
    """The sky on the pixels of a header."""
    return Segment(what(*places(header, size)), header, True)
