"""The statistics that SHARP headers state, against the pixels.

They stand in for checksums where a file has lost those (some tools re-write
headers without them). They see most damage, not all: one pixel that is wrong
by the last digit changes no mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitsfile import FitsError, Value

# The archive writes float32 numbers with six decimals, which may be wrong by 6e-8 of the number
# plus 5e-7; all 22 real segments that were compared are. Twice that is allowed.
RELATIVE, ABSOLUTE = 1.2e-7, 1e-6
KEYS = ("DATAMIN", "DATAMAX", "DATAMEAN", "DATARMS")


def states_its_pixels(header: Mapping[str, Value], shape: tuple[int, int]) -> bool:
    """Whether DATAMIN to DATARMS describe these very pixels.

    They do in SHARP segments at their native size. Resampled images carry those
    of their parent, which has another number of pixels.
    """
    vals, missing = header.get("DATAVALS"), header.get("MISSVALS")
    return (
        str(header.get("TELESCOP")).startswith("SDO")
        and isinstance(header.get("HARPNUM"), int)
        and isinstance(vals, int)
        and isinstance(missing, int)
        and vals + missing == shape[0] * shape[1]
        and all(isinstance(header.get(key), int | float) for key in KEYS)
    )


def check_statistics(header: Mapping[str, Value], data: NDArray[np.floating], name: str) -> None:
    """Compare DATAVALS, DATAMIN, DATAMAX, DATAMEAN and DATARMS with the pixels.

    DATARMS is the sample standard deviation (n - 1), whatever its name says.

    Raises
    ------
    FitsError
        ``statistics``: a header that states its pixels states others.
    """
    if not states_its_pixels(header, (data.shape[0], data.shape[1])):
        return
    valid = data[np.isfinite(data)].astype(np.float64)
    if valid.size != header["DATAVALS"]:
        raise FitsError(
            "statistics", f"{name}: DATAVALS says {header['DATAVALS']}, the pixels {valid.size}"
        )
    if valid.size < 2:
        return
    found = (valid.min(), valid.max(), valid.mean(), valid.std(ddof=1))
    for key, value in zip(KEYS, found, strict=True):
        stated = float(header[key])  # type: ignore[arg-type]
        if not abs(value - stated) <= RELATIVE * abs(stated) + ABSOLUTE:
            raise FitsError("statistics", f"{name}: {key} says {stated}, the pixels give {value}")
