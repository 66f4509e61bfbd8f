"""What flared within a day before and after a record, in the NOAA regions of its HARP.

A record is unknown (null), not quiet, when it has no NOAA region, is simulated, or its day
is not wholly within the list. ``none`` means that the list has no flare of these regions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray

from sunpipe.index import goes
from sunpipe.index.clock import iso, utc_seconds

LIST = Path(__file__).parent / "goes_flares.csv.gz"
DAY = 86400.0
REGION = 10_000_000_000  # seconds: longer than any list, so that keys sort by region, then time
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Flares:
    """A list, by region and peak time.

    Attributes
    ----------
    noaa : int64 ndarray (F,)
    peak : int64 ndarray (F,)
        UTC seconds since 1970.
    flux : float64 ndarray (F,)
        Peak flux, W/m2.
    names : list of str
        GOES classes.
    """

    noaa: Ints
    peak: Ints
    flux: Floats
    names: list[str]

    @property
    def span(self) -> tuple[int, int]:
        """First and last peak: outside nothing is known."""
        return int(self.peak.min()), int(self.peak.max())


@dataclass(frozen=True)
class Window:
    """Flares of N records on one side of their time; NaN and -1 where unknown.

    Attributes
    ----------
    largest : float64 ndarray (N,)
        Peak flux of the largest, W/m2; 0 where there was none.
    count : int64 ndarray (N,)
    """

    largest: Floats
    count: Ints


@lru_cache(maxsize=1)
def read_flares(path: Path = LIST) -> Flares:
    """The list of the package, or another that `sunpipe.index.goes_list` wrote."""
    table = pyarrow.csv.read_csv(path)
    peak = table["peak"].cast("timestamp[s]").to_numpy().astype("datetime64[s]").astype(np.int64)
    noaa, names = table["noaa"].to_numpy().astype(np.int64), table["class"].to_pylist()
    order = np.lexsort((peak, noaa))
    names = [names[place] for place in order]
    return Flares(noaa[order], peak[order], np.array([goes.flux(name) for name in names]), names)


@lru_cache(maxsize=65536)
def regions(noaa_ars: str | None) -> tuple[int, ...]:
    """NOAA numbers of a NOAA_ARS keyword; four digits get the leading 1 they lost."""
    found = (int(number) for number in re.findall(r"\d+", noaa_ars or ""))
    return tuple(sorted({number + 10000 * (number < 10000) for number in found if number}))


def _ranges(flares: Flares, noaa: Ints, low: Floats, high: Floats) -> tuple[Ints, Ints]:
    """Flares of a region with low < peak <= high, as rows of the list [first, last)."""
    keys = flares.noaa * REGION + flares.peak
    # Peaks are whole seconds, so low < peak is floor(low) < peak.
    first, last = (
        np.searchsorted(keys, noaa * REGION + np.floor(edge).astype(np.int64), side="right")
        for edge in (low, high)
    )
    return first.astype(np.int64), last.astype(np.int64)


def windows(
    noaa_ars: Sequence[str | None], t_rec: Sequence[str | None], simulated: Sequence[bool | None],
    flares: Flares | None = None,
) -> dict[str, Window]:  # fmt: skip
    """Flares within 24 h after and before records.

    Parameters
    ----------
    noaa_ars, t_rec, simulated : sequences (N,)
        Columns of ``records.parquet``.

    Returns
    -------
    dict of Window
        ``after`` (T_REC < peak <= T_REC + 24 h) and ``before`` (T_REC - 24 h < peak <= T_REC).
    """
    flares = read_flares() if flares is None else flares
    time = utc_seconds(t_rec)
    named = [() if sim else regions(text) for text, sim in zip(noaa_ars, simulated, strict=True)]
    owner = np.repeat(np.arange(len(named)), [len(numbers) for numbers in named])
    noaa = np.array([number for numbers in named for number in numbers], np.int64)
    begin, end = flares.span
    # fmax.reduceat needs one entry behind the last flare
    padded = np.append(flares.flux, 0.0)
    result = {}
    for side, low, high in (("after", time, time + DAY), ("before", time - DAY, time)):
        known = np.isfinite(time) & (low >= begin) & (high <= end)
        known &= np.bincount(owner, minlength=len(time)) > 0
        largest, count = np.zeros(len(time)), np.zeros(len(time), np.int64)
        asked = known[owner]
        rows = owner[asked]
        first, last = _ranges(flares, noaa[asked], low[rows], high[rows])
        some = last > first
        if some.any():
            edges = np.stack([first[some], last[some]], axis=1).ravel()
            np.maximum.at(largest, rows[some], np.maximum.reduceat(padded, edges)[::2])
        np.add.at(count, rows, last - first)
        largest[~known], count[~known] = np.nan, -1
        result[side] = Window(largest, count)
    return result


def context(
    noaa_ars: str | None, t_rec: str | None, simulated: bool | None, flares: Flares | None = None
) -> dict[str, Any]:
    """What a result says of one record.

    Returns
    -------
    dict
        ``after`` and ``before``: None where unknown, else ``{"largest", "flux", "count",
        "flares": [{"class", "peak", "noaa"}]}`` with the flares in the order of time.
    """
    flares = read_flares() if flares is None else flares
    found = windows([noaa_ars], [t_rec], [simulated], flares)
    time = utc_seconds([t_rec])
    about: dict[str, Any] = {}
    for side, low, high in (("after", time, time + DAY), ("before", time - DAY, time)):
        window = found[side]
        if window.count[0] < 0:
            about[side] = None
            continue
        rows: list[int] = []
        for number in regions(noaa_ars):
            first, last = _ranges(flares, np.array([number]), low, high)
            rows += range(first[0], last[0])
        rows.sort(key=lambda row: (flares.peak[row], flares.noaa[row]))
        about[side] = {
            "largest": goes.name(window.largest[0]), "flux": float(window.largest[0]),
            "count": int(window.count[0]),
            "flares": [{"class": flares.names[row], "peak": iso(flares.peak[row]),
                        "noaa": int(flares.noaa[row])} for row in rows],
        }  # fmt: skip
    return about
