"""Times of AIA headers and tables: UTC, as ISO 8601 with or without a Z."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SCALE = re.compile(r"_(TAI|UTC)$")
SCALES_APART = 40.0  # seconds; TAI - UTC is 34 to 37 in SDO's life, with room for leap seconds
_ISO = re.compile(r"(\d{4})[-./](\d\d)[-./](\d\d)[T_ ](\d\d):(\d\d):(\d\d(?:\.\d*)?)Z?$")


def utc(text: object) -> datetime | None:
    """A UTC time as a naive datetime; None when `text` is no such time.

    Second 60, a leap second, is the next minute's first.

    Examples
    --------
    >>> utc("2011-03-19T10:54:01.34Z")
    datetime.datetime(2011, 3, 19, 10, 54, 1, 340000)
    """
    match = _ISO.match(str(text).strip())
    if match is None:
        return None
    try:
        start = datetime(*(int(part) for part in match.groups()[:5]))  # type: ignore[arg-type]
    except ValueError:
        return None
    return start + timedelta(seconds=float(match.group(6)))


def seconds_apart(one: object, other: object) -> float | None:
    """At least so many seconds lie between two times; None when one of them is no time.

    Parameters
    ----------
    one, other : str
        TAI (``2011.02.15_02:00:00_TAI``) or UTC. Between the two scales the leap
        seconds are not counted, so that up to 40 s are forgiven.
    """
    texts = [str(text).strip() for text in (one, other)]
    times = [utc(_SCALE.sub("", text)) for text in texts]
    if times[0] is None or times[1] is None:
        return None
    apart = abs((times[0] - times[1]).total_seconds())
    scales = [text.endswith("_TAI") for text in texts]
    return apart if scales[0] == scales[1] else max(0.0, apart - SCALES_APART)
