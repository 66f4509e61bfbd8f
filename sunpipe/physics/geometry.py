"""Length of a pixel of a CEA patch, from its header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sunpipe.errors import DataError

CARDS = ("CDELT1", "RSUN_REF", "RSUN_OBS", "DSUN_OBS")
PLACE_CARDS = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CRLN_OBS", "CRLT_OBS")
NEEDED_FOR = {
    **dict.fromkeys(CARDS, "the pixel size"),
    **dict.fromkeys(PLACE_CARDS, "the place on the disk"),
}


def number(header: Mapping[str, Any], name: str) -> float:
    """One finite number of a header.

    Raises
    ------
    DataError
        When the card is missing, not a number, or not finite.
    """
    value = header.get(name)
    if value is None:
        raise DataError(f"header card {name} is missing; it is needed for {NEEDED_FOR[name]}")
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"header card {name} is {value!r}, not a number") from None
    if not math.isfinite(found):
        raise DataError(f"header card {name} is {value!r}; it must be finite")
    return found


def card(header: Mapping[str, Any], name: str) -> float:
    """One positive finite number of a header.

    Raises
    ------
    DataError
        As `number`, or when it is not positive.
    """
    found = number(header, name)
    if found <= 0:
        raise DataError(f"header card {name} is {header[name]!r}; it must be finite and positive")
    return found


def pixel_size_arcsec(header: Mapping[str, Any]) -> float:
    """Angle that one pixel of a CEA patch would fill at disk centre, in arcsec.

    ``s = atan(RSUN_REF * CDELT1 * pi/180 / DSUN_OBS)``: an arc of CDELT1 degrees
    on the sphere seen from DSUN_OBS (the convention of the SHARP keywords,
    Bobra et al. 2014, Solar Physics 289, 3549).
    """
    arc = card(header, "RSUN_REF") * math.radians(card(header, "CDELT1"))
    return math.degrees(math.atan(arc / card(header, "DSUN_OBS"))) * 3600.0


def pixel_size_cm(header: Mapping[str, Any]) -> float:
    """Side of one pixel of a CEA patch on the Sun, in cm.

    ``L = s * RSUN_REF / RSUN_OBS`` metres with s from `pixel_size_arcsec`; this
    is 100 L. For the standard 0.03 degree pixel it is close to 3.644e7 cm.

    Parameters
    ----------
    header : mapping
        FITS cards CDELT1 (degree), RSUN_REF (m), RSUN_OBS (arcsec), DSUN_OBS (m).

    Raises
    ------
    DataError
        When a card is missing, not a number, not finite, or not positive.
    """
    metres = pixel_size_arcsec(header) * card(header, "RSUN_REF") / card(header, "RSUN_OBS")
    return 100.0 * metres
