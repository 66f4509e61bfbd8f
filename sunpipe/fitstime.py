"""Times of records, and which of them are on the calendar."""

from __future__ import annotations

import re
from datetime import datetime

T_REC = re.compile(r"\d{4}\.\d\d\.\d\d_\d\d:\d\d:\d\d(\.\d+)?_TAI")


def on_calendar(t_rec: str) -> bool:
    """Whether a T_REC is a day and a time of day that exist.

    Parameters
    ----------
    t_rec : str
        ``2011.02.15_02:00:00_TAI`` or ``2011-02-15T02:00:00Z``; the shape is not checked.
        TAI has no leap seconds; a minute of UTC may have a second 60.
    """
    year, month, day, hour, minute, second = (int(part) for part in re.findall(r"\d+", t_rec)[:6])
    leap = t_rec.endswith("Z") and second == 60 and (hour, minute) == (23, 59)
    try:
        datetime(year, month, day, hour, minute, 59 if leap else second)
    except ValueError:
        return False
    return True
