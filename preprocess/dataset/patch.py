"""Pure arithmetic of a cut tile: its coordinates, its flux, where it stands on the disc."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sunpipe.errors import DataError
from sunpipe.fitscea import centre_cosine, finite

RSUN_CM = 6.957e10


def number(header: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a header, or None."""
    return finite(header, key)


def _needed(header: Mapping[str, Any], key: str) -> float:
    value = number(header, key)
    if value is None:
        raise DataError(f"header card {key} is {header.get(key)!r}, not a number")
    return value


def tile_wcs(header: Mapping[str, Any], offset: tuple[int, int], reduce: int) -> dict[str, Any]:
    """World coordinates of a tile after cutting and averaging (FITS WCS paper I).

    A native pixel coordinate p (centre of the first pixel is 1) becomes
    ``(p - first - 0.5) / reduce + 0.5``.

    Parameters
    ----------
    header : mapping
        CRPIX, CRVAL, CDELT, CTYPE of the patch.
    offset : (y, x)
        First native row and column of the tile, 0-based.

    Raises
    ------
    DataError
        When a card is missing or not a number.
    """
    out: dict[str, Any] = {}
    for axis, first in ((1, offset[1]), (2, offset[0])):
        out[f"crpix{axis}"] = (_needed(header, f"CRPIX{axis}") - int(first) - 0.5) / reduce + 0.5
        out[f"crval{axis}"] = _needed(header, f"CRVAL{axis}")
        out[f"cdelt{axis}"] = _needed(header, f"CDELT{axis}") * reduce
        out[f"ctype{axis}"] = str(header.get(f"CTYPE{axis}", ""))
        out[f"cunit{axis}"] = "deg"  # SHARPs spell it degree, which the standard does not know
    return out


def disk_pixel_cm(cdelt: float, rsun_obs: float) -> float:
    """Side of a pixel of a full-disk image in the plane of the sky through the Sun's centre, cm.

    ``R tan(cdelt) / sin(rsun_obs)``: the distance is ``R / sin(rsun_obs)``, R the
    nominal solar radius (IAU 2015 Resolution B3).

    Parameters
    ----------
    cdelt, rsun_obs : float
        Arcsec.
    """
    pixel, limb = math.radians(cdelt / 3600), math.radians(rsun_obs / 3600)
    return RSUN_CM * math.tan(pixel) / math.sin(limb)


def centre_mu(header: Mapping[str, Any]) -> float | None:
    """Cosine of the heliocentric angle of the patch centre, None when a card is missing.

    ``mu = (cos g - q) / sqrt(1 + q^2 - 2 q cos g)``: the angle between the vertical
    and the direction to an observer at DSUN_OBS, with ``q = RSUN_REF / DSUN_OBS`` and
    g the angle at the Sun's centre (`centre_cosine`). It follows from the vectors
    from the Sun's centre to the observer and to the surface (Thompson 2006, A&A
    449, 791, eqs. 11 and 12); q = 0 is an observer at infinity. The limb, mu = 0, is at
    ``cos g = q``, 0.27 degrees before g = 90.
    """
    cosine = centre_cosine(header)
    metres, distance = finite(header, "RSUN_REF"), finite(header, "DSUN_OBS")
    if cosine is None or metres is None or distance is None or not 0 < metres < distance:
        return None
    q = metres / distance
    return (cosine - q) / math.sqrt(1 + q * q - 2 * q * cosine)
