"""Times of records, and which of them are on the calendar."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

T_REC = re.compile(r"\d{4}\.\d\d\.\d\d_\d\d:\d\d:\d\d(\.\d+)?_TAI")


@lru_cache(maxsize=1024)  # records come day by day
def _is_day(text: str) -> bool:
    try:
        date(int(text[:4]), int(text[5:7]), int(text[8:10]))
    except ValueError:
        return False
    return True


def on_calendar(t_rec: str) -> bool:
    """Whether a T_REC is a day and a time of day that exist.

    Parameters
    ----------
    t_rec : str
        ``2011.02.15_02:00:00_TAI`` or ``2011-02-15T02:00:00Z``; the shape is not checked.
        TAI has no leap seconds; the last minute of a UTC day may have a second 60.
    """
    clock = t_rec[11:19]
    whole = clock[:2] < "24" and clock[3:5] < "60" and clock[6:] < "60"
    return _is_day(t_rec[:10]) and (whole or (clock == "23:59:60" and t_rec.endswith("Z")))
