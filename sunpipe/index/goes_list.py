"""A list of GOES flares as it is found on the net, made clean; the list of the package.

``python -m sunpipe.index.goes_list RAW.csv OUT.csv.gz`` made ``goes_flares.csv.gz`` (see
``goes_flares.md`` for where the list is from). What is mended, each by a rule:

* region numbers of four digits (``1149``) are those of NOAA without the leading 1: 11149;
* a peak "before" its start is one at midnight, of the next day;
* rows that say the same twice are one; of two with one peak time and region the larger stays.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sunpipe.errors import DataError
from sunpipe.files import atomic_path
from sunpipe.index import goes

COLUMNS = ("peak", "start", "end", "noaa", "class")  # UTC to the minute, region, class
RAW_TIME = "%m/%d/%y %H:%M"
TIME = "%Y-%m-%dT%H:%M"
LONGEST = timedelta(hours=12)


@dataclass(frozen=True, order=True)
class Flare:
    """One flare: times in UTC, NOAA region with five digits, GOES class."""

    peak: datetime
    noaa: int
    start: datetime
    end: datetime
    name: str


def _flare(row: dict[str, str], line: int) -> Flare:
    try:
        start, end, peak = (
            datetime.strptime(row[key], RAW_TIME) for key in ("start_time", "end_time", "peak_time")
        )
        noaa = int(row["NOAA_ar_num"])
        goes.flux(row["class"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"line {line} is no flare: {error}") from None
    noaa += 10000 if noaa < 10000 else 0
    peak += timedelta(days=1) if peak < start else timedelta(0)
    if not start <= peak <= end <= start + LONGEST:
        raise DataError(f"line {line}: start, peak and end are {start}, {peak}, {end}")
    return Flare(peak, noaa, start, end, row["class"])


def clean(lines: Iterable[str]) -> list[Flare]:
    """Flares of a raw list, by peak time and region.

    Parameters
    ----------
    lines : iterable of str
        CSV with ``class, NOAA_ar_num, event_date, start_time, end_time, peak_time``.

    Raises
    ------
    DataError
        A row that no rule mends.
    """
    best: dict[tuple[datetime, int], Flare] = {}
    for line, row in enumerate(csv.DictReader(lines), 2):
        found = _flare(row, line)
        known = best.get((found.peak, found.noaa))
        if known is None or goes.flux(found.name) > goes.flux(known.name):
            best[found.peak, found.noaa] = found
    return sorted(best.values())


def write(path: Path, flares: list[Flare]) -> None:
    """Write a clean list; the same flares give the same bytes."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for flare in flares:
        peak, noaa, start, end, name = astuple(flare)
        rows.writerow([*(time.strftime(TIME) for time in (peak, start, end)), noaa, name])
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue().encode("ascii"), 9, mtime=0))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="ascii", newline="") as handle:
        write(Path(sys.argv[2]), clean(handle))
