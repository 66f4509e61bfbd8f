"""Names in the archive: ``archive/<series>/<folder>/<time>/<file>``.

File names are those of a JSOC export, for example
``hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits`` in the folder
``hmi.sharp_cea_720s/377/20110215_020000_TAI``, or
``aia.lev1_euv_12s.2011-02-15T020002Z.193.image.fits`` in
``aia.lev1_euv_12s/20110215/2011-02-15T020002Z.193``. Beside the segments of a
record stands ``keywords.json`` when they came without keywords. Everything that
becomes part of a path passes a whitelist here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from sunpipe.errors import DataError
from sunpipe.fitstime import T_REC, on_calendar

SERIES_NAME = re.compile(r"[a-z][a-z0-9]{0,15}\.[A-Za-z0-9_]{1,63}")
SEGMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
KEYWORDS = "keywords"  # the pseudo-segment under which keywords.json is listed
UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")  # T_REC of AIA level 1
_TIME = rf"(?:{T_REC.pattern}|{UTC.pattern})".replace("(\\.", "(?:\\.")
_NUMBER = r"[1-9]\d{0,6}"
_RECORD = re.compile(
    rf"({SERIES_NAME.pattern})(?:\[({_NUMBER})\]\[({_TIME})\]|\[({_TIME})\](?:\[({_NUMBER})\])?)"
)
_COMPACT = r"(?:\d{8}_\d{6}(?:\.\d+)?_TAI|\d{4}-\d\d-\d\dT\d{6}(?:\.\d+)?Z)"
_FILE = re.compile(
    rf"({SERIES_NAME.pattern})\.(?:({_NUMBER})\.({_COMPACT})|({_COMPACT})(?:\.({_NUMBER}))?)"
    rf"\.({SEGMENT_NAME.pattern})\.fits"
)


@dataclass(frozen=True)
class RecordName:
    """What a record-set string of one record says.

    Attributes
    ----------
    series : str
    t_rec : str
        As JSOC writes it: TAI for HMI, UTC (``...Z``) for AIA level 1.
    harpnum : int or None
        First prime key of SHARP series.
    number : int or None
        Second prime key of full-disk series: wavelength in angstrom (AIA) or camera (HMI).
    """

    series: str
    t_rec: str
    harpnum: int | None = None
    number: int | None = None

    @property
    def order(self) -> tuple[int, str, str, int]:
        """Sorts by HARP, time, series and number."""
        return self.harpnum or 0, self.t_rec, self.series, self.number or 0

    def __str__(self) -> str:
        if self.harpnum is not None:
            return f"{self.series}[{self.harpnum}][{self.t_rec}]"
        return f"{self.series}[{self.t_rec}]" + (f"[{self.number}]" if self.number else "")


def compact_time(t_rec: str) -> str:
    """A time as file names have it.

    ``2011.02.15_02:00:00_TAI`` becomes ``20110215_020000_TAI``, and
    ``2011-02-15T02:00:02Z`` becomes ``2011-02-15T020002Z``.
    """
    if UTC.fullmatch(t_rec):
        return t_rec.replace(":", "")
    if not T_REC.fullmatch(t_rec):
        raise DataError(f"T_REC {t_rec!r} is not a time such as 2011.02.15_02:00:00_TAI")
    return f"{t_rec[:10].replace('.', '')}{t_rec[10:].replace(':', '')}"


def full_time(compact: str) -> str:
    """Inverse of `compact_time`."""
    if compact.endswith("Z"):
        day, _, clock = compact.partition("T")
        return f"{day}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
    day, clock = compact[:8], compact[9:]
    return f"{day[:4]}.{day[4:6]}.{day[6:8]}_{clock[:2]}:{clock[2:4]}:{clock[4:]}"


def parse_record(record: str) -> RecordName:
    """Take a record-set string of one record apart.

    Raises
    ------
    DataError
        When it is not of the form ``series[HARPNUM][T_REC]`` or
        ``series[T_REC][number]``, or its time is on no calendar.
    """
    match = _RECORD.fullmatch(record)
    if match is None:
        raise DataError(f"{record!r} is not a record such as"
                        " hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]")  # fmt: skip
    series, harpnum, sharp_time, disk_time, number = match.groups()
    if not on_calendar(sharp_time or disk_time):
        raise DataError(f"{record!r} has the time {sharp_time or disk_time}, which never was")
    return RecordName(
        series,
        sharp_time or disk_time,
        int(harpnum) if harpnum else None,
        int(number) if number else None,
    )


def split_file_name(name: str) -> tuple[str, str] | None:
    """(record, segment) of an exported file's name, None when it is none."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    series, harpnum, sharp_time, disk_time, number, segment = match.groups()
    t_rec = full_time(sharp_time or disk_time)
    if not on_calendar(t_rec):
        return None
    found = RecordName(
        series,
        t_rec,
        int(harpnum) if harpnum else None,
        int(number) if number else None,
    )
    return str(found), segment


@lru_cache(maxsize=4096)
def _place(record: str) -> tuple[str, str]:
    """Folder of a record and the stem of its file names."""
    name = parse_record(record)
    when = compact_time(name.t_rec)
    if name.harpnum is not None:
        folder = PurePosixPath(name.series, str(name.harpnum), when)
        return str(folder), f"{name.series}.{name.harpnum}.{when}"
    which = when + (f".{name.number}" if name.number else "")
    folder = PurePosixPath(name.series, when.replace("-", "")[:8], which)
    return str(folder), f"{name.series}.{which}"


def relative_path(record: str, segment: str) -> str:
    """Path of a segment (or of `KEYWORDS`) relative to the archive, with slashes."""
    if not SEGMENT_NAME.fullmatch(segment):
        raise DataError(f"{segment!r} is not a segment name")
    folder, stem = _place(record)
    return f"{folder}/keywords.json" if segment == KEYWORDS else f"{folder}/{stem}.{segment}.fits"
