"""Times of requests and records, each in the scale of its series: TAI for HMI, UTC for AIA."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from preprocess.archive import UTC
from sunpipe.errors import ConfigError

_TEXT = re.compile(
    r"(\d{4})[-.](\d\d)[-.](\d\d)(?:[T_ ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?(_TAI|_UTC|Z)?"
)
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
