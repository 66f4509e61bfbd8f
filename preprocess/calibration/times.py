"""Times of AIA headers and tables: UTC, as ISO 8601 with or without a Z."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

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
