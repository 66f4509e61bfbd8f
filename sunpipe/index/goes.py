"""Classes of GOES soft X-ray flares: a letter for the power of ten, a number for the rest.

The class is the peak flux in the 1-8 angstrom channel: A is 1e-8 W/m2, B 1e-7, C 1e-6,
M 1e-5, X 1e-4, so that X2.2 is 2.2e-4 W/m2 (NOAA/SWPC, GOES X-ray flux). Values are those
of the operational lists; the science-quality recalibration of GOES 8 to 15, which divides
by 0.7, is not applied.
"""

from __future__ import annotations

import math
import re

from sunpipe.errors import UsageError

POWERS = {"A": -8, "B": -7, "C": -6, "M": -5, "X": -4}
NONE = "none"  # no flare in the list
_CLASS = re.compile(r"([ABCMX])([0-9]{1,3}(?:\.[0-9]{0,2})?)?", re.IGNORECASE)


def flux(name: str) -> float:
    """Peak flux in W/m2 of a class such as ``M1.3``, ``X`` (X1.0) or ``none`` (0).

    Raises
    ------
    UsageError
        Not a class.
    """
    text = name.strip()
    if text.lower() == NONE:
        return 0.0
    match = _CLASS.fullmatch(text)
    if match is None or float(match[2] or 1) == 0:
        raise UsageError(f"{name!r} is no GOES class; write for example C5.0, M1 or none")
    # Through text, so that equal classes are equal numbers.
    return float(f"{match[2] or 1}e{POWERS[match[1].upper()]}")


def name(peak: float) -> str:
    """Class of a peak flux in W/m2, cut to one decimal as NOAA does; ``none`` for 0."""
    if peak <= 0:
        return NONE
    nudged = peak * (1 + 1e-9)  # 2.2e-4 is a little less than 22 tenths of 1e-4
    letter = max(("A", *(one for one, power in POWERS.items() if nudged >= 10.0**power)),
                 key=lambda one: POWERS[one])  # fmt: skip
    return f"{letter}{math.floor(nudged / 10.0 ** POWERS[letter] * 10) / 10:.1f}"
