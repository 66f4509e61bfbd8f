"""Times of requests and records, each in the scale of its series: TAI for HMI, UTC for AIA."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import UTC
from sunpipe.errors import ConfigError, DataError
from sunpipe.fits import T_REC

_TEXT = re.compile(
    r"(\d{4})[-.](\d\d)[-.](\d\d)(?:[T_ ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?(_TAI|_UTC|Z)?"
)
EPOCH = np.datetime64("2000-01-01T00:00:00", "us")
DAY_S = 86400.0
UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def scale_of(series: str) -> str:
    """``utc`` for AIA level 1, whose T_REC ends in Z, ``tai`` for everything else."""
    return "utc" if series.startswith("aia.") else "tai"


def span_s(text: str) -> int:
    """Seconds of a span such as ``6h``."""
    return int(text[:-1]) * UNIT_S[text[-1]]


def parse_time(text: str, scale: str) -> datetime:
    """A time as a number without zone, in `scale`.

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
    try:
        found = datetime(year, month, day, hour, minute, second)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time: {error}") from None
    found += timedelta(seconds=float(match[7] or 0))
    named = {"_TAI": "tai", "_UTC": "utc", "Z": "utc", None: scale}[match[8]]
    return found if named == scale else _convert(found, named, scale)


def _convert(time: datetime, old: str, new: str) -> datetime:
    """From one scale to another; the leap seconds are astropy's."""
    from astropy.time import Time

    converted = getattr(Time(time, scale=old), new).datetime
    assert isinstance(converted, datetime)
    return converted


def jsoc_time(time: datetime, scale: str) -> str:
    """As it stands in record sets."""
    if scale == "utc":
        return time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return time.strftime("%Y.%m.%d_%H:%M:%S_TAI")


def record_time(t_rec: str) -> datetime:
    """T_REC of a record in its own scale, for differences."""
    return parse_time(t_rec, "utc" if UTC.fullmatch(t_rec) else "tai")


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
