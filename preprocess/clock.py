"""T_REC as numbers: TAI seconds for both spellings, HMI's (TAI) and AIA's (UTC)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import UTC
from sunpipe.errors import DataError
from sunpipe.fits import T_REC

EPOCH = np.datetime64("2000-01-01T00:00:00", "us")
DAY_S = 86400.0


def _leap_seconds() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """UTC seconds since `EPOCH` at which TAI - UTC changed, and its new value."""
    import erfa

    table = erfa.leap_seconds.get()
    months = [np.datetime64(f"{row['year']:04d}-{row['month']:02d}-01", "us") for row in table]
    since = (np.array(months) - EPOCH) / np.timedelta64(1, "s")
    return since.astype(np.float64), np.asarray(table["tai_utc"], dtype=np.float64)


def tai_seconds(times: Sequence[str]) -> NDArray[np.float64]:
    """TAI seconds since 2000-01-01T00:00:00 TAI.

    A UTC time within a leap second (``23:59:60``) is the second before midnight
    of the new day, as it should be.

    Parameters
    ----------
    times : sequence of str
        ``2011.02.15_02:00:00_TAI`` or ``2011-02-15T02:00:00Z``, mixed at will.

    Raises
    ------
    DataError
        Names a time of another shape.
    """
    seconds = np.empty(len(times))
    utc = np.zeros(len(times), bool)
    leap = np.zeros(len(times))
    for place, text in enumerate(times):
        if T_REC.fullmatch(text):
            day, clock = text[:10].replace(".", "-"), text[11:-4]
        elif UTC.fullmatch(text):
            day, clock = text[:10], text[11:-1]
            utc[place] = True
        else:
            raise DataError(f"{text!r} is not a T_REC such as 2011.02.15_02:00:00_TAI")
        hour, minute, second = clock.split(":")
        leap[place] = float(second) >= 60
        try:
            start = (np.datetime64(day, "us") - EPOCH) / np.timedelta64(1, "s")
        except ValueError:
            raise DataError(f"{text!r} is not a date") from None
        seconds[place] = start + 3600 * int(hour) + 60 * int(minute) + float(second) - leap[place]
    if utc.any():
        since, offset = _leap_seconds()
        which = np.searchsorted(since, seconds[utc], side="right") - 1
        seconds[utc] += offset[np.maximum(which, 0)]
    return seconds + leap
