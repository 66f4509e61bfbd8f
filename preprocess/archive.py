"""Names in the archive: ``archive/<series>/<HARPNUM>/<compact T_REC>/<file>``.

File names are those of a JSOC export, for example
``hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits``; beside the segments of a
record stands ``keywords.json`` when they came without keywords. Everything that
becomes part of a path passes a whitelist here.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from sunpipe.errors import DataError
from sunpipe.fits import T_REC, record_string

SERIES_NAME = re.compile(r"[a-z][a-z0-9]{0,15}\.[A-Za-z0-9_]{1,63}")
SEGMENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
KEYWORDS = "keywords"  # the pseudo-segment under which keywords.json is listed
_RECORD = re.compile(rf"({SERIES_NAME.pattern})\[([1-9]\d{{0,6}})\]\[({T_REC.pattern})\]")
_FILE = re.compile(
    rf"({SERIES_NAME.pattern})\.([1-9]\d{{0,6}})\.(\d{{8}}_\d{{6}}(?:\.\d+)?_TAI)"
    rf"\.({SEGMENT_NAME.pattern})\.fits"
)


def compact_time(t_rec: str) -> str:
    """``2011.02.15_02:00:00_TAI`` as file names have it: ``20110215_020000_TAI``."""
    if not T_REC.fullmatch(t_rec):
        raise DataError(f"T_REC {t_rec!r} is not a TAI time such as 2011.02.15_02:00:00_TAI")
    return f"{t_rec[:10].replace('.', '')}{t_rec[10:].replace(':', '')}"


def full_time(compact: str) -> str:
    """Inverse of `compact_time`."""
    day, clock = compact[:8], compact[9:]
    return f"{day[:4]}.{day[4:6]}.{day[6:8]}_{clock[:2]}:{clock[2:4]}:{clock[4:]}"


def split_record(record: str) -> tuple[str, int, str]:
    """(series, HARPNUM, T_REC) of a SHARP record-set string.

    Raises
    ------
    DataError
        When it is not of the form ``series[HARPNUM][T_REC]``.
    """
    match = _RECORD.fullmatch(record)
    if match is None:
        raise DataError(f"{record!r} is not a SHARP record such as"
                        " hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]")  # fmt: skip
    return match.group(1), int(match.group(2)), match.group(3)


def split_file_name(name: str) -> tuple[str, str] | None:
    """(record, segment) of an exported file's name, None when it is none."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    series, harpnum, compact, segment = match.group(1, 2, 3, 4)
    return record_string(series, int(harpnum), full_time(compact)), segment


def relative_path(record: str, segment: str) -> str:
    """Path of a segment (or of `KEYWORDS`) relative to the archive, with slashes."""
    series, harpnum, t_rec = split_record(record)
    if not SEGMENT_NAME.fullmatch(segment):
        raise DataError(f"{segment!r} is not a segment name")
    when = compact_time(t_rec)
    folder = PurePosixPath(series, str(harpnum), when)
    if segment == KEYWORDS:
        return str(folder / "keywords.json")
    return str(folder / f"{series}.{harpnum}.{when}.{segment}.fits")
