"""T_REC as a number: HMI counts in TAI, AIA in UTC, flare lists in UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitstime import on_calendar

Floats = NDArray[np.float64]
_TIME = re.compile(
    r"(\d{4})[-.](\d\d)[-.](\d\d)[T_](\d\d):(\d\d):(\d\d(?:\.\d+)?)(_TAI|Z)"
)  # fmt: skip


@lru_cache(maxsize=1)
def _leap_seconds() -> tuple[Floats, Floats]:
    """TAI seconds since 1970 at which TAI - UTC changed, and its value from then on.

    The table is ERFA's, as of IERS Bulletin C.
    """
    import erfa

    table = erfa.leap_seconds.get()
    months = np.array([np.datetime64(f"{row['year']:04d}-{row['month']:02d}-01") for row in table])
    offset = np.asarray(table["tai_utc"], np.float64)
    return months.astype("datetime64[s]").astype(np.float64) + offset, offset


def utc_seconds(times: Sequence[str | None]) -> Floats:
    """UTC seconds since 1970 of T_REC strings, NaN where one is no time.

    Parameters
    ----------
    times : sequence of str
        ``2011.02.15_02:00:00_TAI`` or ``2011-02-15T02:00:00Z``.
    """
    clock, tai = np.full(len(times), np.nan), np.zeros(len(times), bool)
    for place, text in enumerate(times):
        match = _TIME.fullmatch(text or "")
        if match is None or not on_calendar(match[0]):
            continue
        year, month, day, hour, minute, second, scale = match.groups()
        midnight = np.datetime64(f"{year}-{month}-{day}", "s").astype(np.int64)
        clock[place] = midnight + 3600 * int(hour) + 60 * int(minute) + float(second)
        tai[place] = scale == "_TAI"
    since, offset = _leap_seconds()
    # A T_REC before 1972 does not exist; it would get the first offset.
    behind = offset[np.clip(np.searchsorted(since, clock, side="right") - 1, 0, None)]
    return np.where(tai, clock - behind, clock)


def iso(seconds: float) -> str:
    """UTC seconds since 1970 as ``2011-02-15T01:56Z``."""
    return f"{np.datetime64(round(seconds), 's').astype('datetime64[m]')}Z"
