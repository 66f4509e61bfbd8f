"""Pure arithmetic of a cut tile: its coordinates, its flux, where it stands on the disc."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sunpipe.errors import DataError

RSUN_CM = 6.957e10


def number(header: Mapping[str, Any], key: str) -> float | None:
    """A finite number of a header, or None."""
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


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

    ``mu = sin B0 sin lat + cos B0 cos lat cos(lon - L0)`` with the centre at
    (CRVAL1, CRVAL2) and the sub-observer point at (CRLN_OBS, CRLT_OBS), all in
    degrees (Thompson 2006, A&A 449, 791, eq. 11, for a distant observer).
    """
    cards = [number(header, key) for key in ("CRVAL1", "CRVAL2", "CRLN_OBS", "CRLT_OBS")]
    if None in cards:
        return None
    lon, lat, lon0, lat0 = (math.radians(card) for card in cards if card is not None)
    return math.sin(lat0) * math.sin(lat) + math.cos(lat0) * math.cos(lat) * math.cos(lon - lon0)
