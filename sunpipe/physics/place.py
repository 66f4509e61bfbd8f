"""Where pixels of a CEA patch stand on the disk, and what JSOC's areas make of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.physics.geometry import PLACE_CARDS, card, number


def disk_cosine(
    header: Mapping[str, Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Cosine of the angle at the Sun's centre between pixels and the observer.

    Columns run in longitude, rows in the sine of the latitude, about CRVAL1 and
    CRVAL2 (Calabretta and Greisen 2002, A&A 395, 1077, section 5.2.2). SHARPs take
    CRVAL as the origin of rotated coordinates; for the area of HARP 377 this changes
    the seventh digit.

    Parameters
    ----------
    header : mapping
        FITS cards CRPIX1/2, CRVAL1/2 (degree), CDELT1 (degree), CRLN_OBS, CRLT_OBS (degree).
    rows, columns : ndarray of int, (N,)
        From 0.

    Raises
    ------
    DataError
        A card that is missing or no number.
    """
    at = {name: number(header, name) for name in PLACE_CARDS}
    step = card(header, "CDELT1")
    longitude = np.radians(at["CRVAL1"] + (columns + 1 - at["CRPIX1"]) * step - at["CRLN_OBS"])
    sine = np.sin(np.radians(at["CRVAL2"])) + np.radians((rows + 1 - at["CRPIX2"]) * step)
    sine = sine.clip(-1, 1)
    tilt = math.radians(at["CRLT_OBS"])
    cosine = np.sqrt(1 - sine**2) * np.cos(longitude)
    return np.asarray(math.sin(tilt) * sine + math.cos(tilt) * cosine)


def deprojection(
    header: Mapping[str, Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Area that JSOC's patch statistics find for a piece of surface, over its true area.

    They divide the area in the image by the cosine that an observer at infinity
    would see, while SDO stands at 215 radii. With q = R / D and mu = `disk_cosine`
    the piece covers ``q^2 (mu - q) / (1 - q mu)^3`` of the image plane, the disk's
    radius is ``q / sqrt(1 - q^2)`` and the apparent cosine ``(mu - q) / (1 - q mu)``;
    together ``(1 - q^2) / (1 - q mu)^2``: 1.0094 at disk centre, 0.99998 at the limb.

    Parameters
    ----------
    header, rows, columns
        As in `disk_cosine`, with the cards RSUN_REF and DSUN_OBS.
    """
    q = card(header, "RSUN_REF") / card(header, "DSUN_OBS")
    return np.asarray((1 - q**2) / (1 - q * disk_cosine(header, rows, columns)) ** 2)
