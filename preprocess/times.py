"""Times of requests and records, each in the scale of its series: TAI for HMI, UTC for AIA."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import UTC
from sunpipe.errors import ConfigError, DataError
from sunpipe.fits import T_REC

_TEXT = re.compile(
    r"(\d{4})[-.](\d\d)[-.](\d\d)(?:[T_ ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?(_TAI|_UTC|Z)?"
)
EPOCH = np.datetime64("2000-01-01T00:00:00", "us")
_START = datetime(2000, 1, 1)
DAY_S = 86400.0
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def scale_of(series: str) -> str:
    """``utc`` for AIA level 1, whose T_REC ends in Z, ``tai`` for everything else."""
    return "utc" if series.startswith("aia.") else "tai"


def span_s(text: str) -> int:
    """Seconds of a span such as ``6h``."""
    return int(text[:-1]) * UNIT_S[text[-1]]


def parse_time(text: str, scale: str) -> datetime:
    """A time in TAI, as a number without zone.

    TAI has no leap seconds, so that differences are seconds that have passed.

    Parameters
    ----------
    text : str
        Date, or date and time; ``_TAI``, ``_UTC`` or ``Z`` names another scale.
    scale : str
        ``tai`` or ``utc``; holds when `text` names none.

    Raises
    ------
    ConfigError
        When it is no time.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no time such as 2011-02-15 or 2011.02.15_02:00:00_TAI")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    named = {"_TAI": "tai", "_UTC": "utc", "Z": "utc", None: scale}[match[8]]
    leap = named == "utc" and second == 60
    try:
        clock = datetime(year, month, day, hour, minute, second - leap)
        found = clock + timedelta(seconds=leap + float(match[7] or 0))
        if named == "utc":
            since, offset = _leap_seconds()
            here = int(np.searchsorted(since, seconds_of(clock), side="right")) - 1
            found += timedelta(seconds=float(offset[max(here, 0)]))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{text!r} is no time: {error}") from None
    if leap and not jsoc_time(found, "utc").endswith(":60Z"):
        raise ConfigError(f"{text!r} is no time: there was no leap second then")
    return found


def jsoc_time(time: datetime, scale: str) -> str:
    """A time in TAI as it stands in record sets of a series with this scale."""
    if scale == "tai":
        return time.strftime("%Y.%m.%d_%H:%M:%S_TAI")
    seconds = (time - _START).total_seconds()
    since, offset = _leap_seconds()
    here = max(int(np.searchsorted(since + offset, seconds, side="right")) - 1, 0)
    utc = time - timedelta(seconds=float(offset[here]))
    if here + 1 < len(since) and seconds - offset[here] >= since[here + 1]:
        return (utc - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:60Z")
    return utc.strftime("%Y-%m-%dT%H:%M:%SZ")


def from_tai_seconds(seconds: float) -> datetime:
    """Inverse of `tai_seconds`, as `parse_time` gives it."""
    return _START + timedelta(seconds=seconds)


def seconds_of(time: datetime) -> float:
    """TAI seconds of what `parse_time` gives."""
    return (time - _START).total_seconds()


@lru_cache(maxsize=1)
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
