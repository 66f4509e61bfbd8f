"""Length of a pixel of a CEA patch, from its header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sunpipe.errors import DataError

CARDS = ("CDELT1", "RSUN_REF", "RSUN_OBS", "DSUN_OBS")


def card(header: Mapping[str, Any], name: str) -> float:
    """One positive finite number of a header.

    Raises
    ------
    DataError
        When the card is missing, not a number, not finite, or not positive.
    """
    value = header.get(name)
    if value is None:
        raise DataError(f"header card {name} is missing; it is needed for the pixel size")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"header card {name} is {value!r}, not a number") from None
    if not math.isfinite(number) or number <= 0:
        raise DataError(f"header card {name} is {value!r}; it must be finite and positive")
    return number


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
