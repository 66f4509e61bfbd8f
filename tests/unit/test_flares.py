"""Flares before and after records: the list, its clock, and what is unknown."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sunpipe.errors import DataError, UsageError
from sunpipe.index import goes
from sunpipe.index.clock import iso, utc_seconds
from sunpipe.index.flares import LIST, context, read_flares, regions, windows
from sunpipe.index.goes_list import clean, write

RAW = """class,NOAA_ar_num,event_date,start_time,end_time,peak_time
B2.2,11149,1/23/11,1/23/11 9:40,1/23/11 9:53,1/23/11 9:49
B2.2,1149,1/23/11,1/23/11 9:40,1/23/11 9:53,1/23/11 9:49
C2.5,11190,4/11/11,4/11/11 23:40,4/12/11 0:03,4/11/11 0:00
C1.1,12349,5/21/15,5/21/15 6:57,5/21/15 7:17,5/21/15 7:06
C1.2,12349,5/21/15,5/21/15 6:56,5/21/15 7:18,5/21/15 7:06
"""


@pytest.mark.parametrize(
    ("name", "flux"),
    [("M1", 1e-5), ("X2.2", 2.2e-4), ("c5.0", 5e-6), ("X", 1e-4), ("A8.1", 8.1e-8),
     ("X17.2", 1.72e-3), ("none", 0.0)],
)  # fmt: skip
def test_classes(name: str, flux: float) -> None:
    assert goes.flux(name) == pytest.approx(flux, rel=1e-12)
    if len(name) > 2:
        assert goes.name(flux) == (name if name == "none" else name.upper())


def test_class_names_survive_the_way_there_and_back() -> None:
    for letter in "ABCMX":
        for tenth in range(10, 100):
            name = f"{letter}{tenth / 10:.1f}"
            assert goes.name(goes.flux(name)) == name


@pytest.mark.parametrize("name", ["", "D1", "M1.0.0", "M-1", "1e-5", "M0", "MM"])
def test_what_is_no_class(name: str) -> None:
    with pytest.raises(UsageError, match="is no GOES class"):
        goes.flux(name)


def test_the_clock_knows_leap_seconds() -> None:
    found = utc_seconds(["2011.02.15_02:00:00_TAI", "2011-02-15T01:59:26Z",
                         "2017.01.01_00:00:37_TAI", "2016.12.31_12:00:36_TAI",
                         "2015.02.30_00:00:00_TAI", "2011.02.15", None])  # fmt: skip
    assert found[0] == found[1]
    assert found[2] == np.datetime64("2017-01-01", "s").astype(int)
    assert found[3] == np.datetime64("2016-12-31T12:00", "s").astype(int)
    assert np.isnan(found[4:]).all()
    assert iso(found[0]) == "2011-02-15T01:59Z"


def test_the_raw_list_is_mended(tmp_path: Path) -> None:
    flares = clean(RAW.splitlines())
    assert [(flare.noaa, flare.name, str(flare.peak)) for flare in flares] == [
        (11149, "B2.2", "2011-01-23 09:49:00"),
        (11190, "C2.5", "2011-04-12 00:00:00"),
        (12349, "C1.2", "2015-05-21 07:06:00"),
    ]
    for name in ("one", "two"):
        write(tmp_path / name, flares)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    for wrong in ("Q1.0,11149,x,1/23/11 9:40,1/23/11 9:53,1/23/11 9:49",
                  "B1.0,11149,x,1/23/11 9:40,1/23/11 9:30,1/23/11 9:49",
                  "B1.0,11149,x,23.1.11 9:40,1/23/11 9:30,1/23/11 9:49"):  # fmt: skip
        with pytest.raises((DataError, UsageError)):
            clean([RAW.splitlines()[0], wrong])


def test_the_list_of_the_package() -> None:
    flares = read_flares()
    assert LIST.stat().st_size < 300_000
    assert len(flares.noaa) == 11272
    assert sum(name.startswith("X") for name in flares.names) == 49
    assert (flares.noaa.min(), flares.noaa.max()) == (11134, 12714)
    assert [iso(edge) for edge in flares.span] == ["2010-12-15T12:10Z", "2018-06-20T00:06Z"]
    assert len(set(zip(flares.noaa, flares.peak, strict=True))) == 11272
    with gzip.open(LIST, "rt") as handle:
        assert handle.readline() == "peak,start,end,noaa,class\n"


def test_harp_377_is_just_after_its_x_flare() -> None:
    found = context("11158", "2011.02.15_02:00:00_TAI", False)
    assert found["before"]["largest"] == "X2.2"
    assert found["before"]["flux"] == pytest.approx(2.2e-4)
    assert found["before"]["flares"][-1] == {
        "class": "X2.2", "peak": "2011-02-15T01:56Z", "noaa": 11158
    }  # fmt: skip
    assert found["after"]["largest"] == "C6.6"
    # Its C2.2 peaks at 02:00 UTC of the next day: 34 s beyond 24 h, since T_REC is TAI.
    assert [flare["class"] for flare in found["after"]["flares"]] == [
        "C4.8",
        "C1.7",
        "C6.6",
        "C1.3",
    ]
    later = context("11158", "2011-02-15T02:00:00Z", False)
    assert later["after"]["flares"][-1]["class"] == "C2.2"
    at_peak = context("11158", "2011-02-15T01:56:00Z", False)
    assert at_peak["before"]["largest"] == "X2.2"
    assert context("11158", "2011-02-15T01:55:59Z", False)["after"]["largest"] == "X2.2"


def test_unknown_is_not_quiet() -> None:
    time = "2015.10.30_00:12:00_TAI"
    assert context("12441", time, False)["after"] == {
        "largest": "none", "flux": 0.0, "count": 0, "flares": []
    }  # fmt: skip
    for noaa, t_rec, simulated in (
        ("MISSING", time, False), (None, time, False), ("0", time, False),
        ("12441", time, True), ("12441", None, False),
        ("12900", "2021.10.30_00:12:00_TAI", False), ("11070", "2010.05.05_00:00:00_TAI", False),
    ):  # fmt: skip
        assert context(noaa, t_rec, simulated) == {"after": None, "before": None}
    edge = context("12714", "2018.06.19_12:00:00_TAI", False)
    assert edge["after"] is None
    assert edge["before"]["largest"] == "B1.0"


def test_any_region_of_a_harp_counts() -> None:
    assert regions("11158,11159") == regions("11159 1158") == (11158, 11159)
    time = "2011.03.08_00:00:00_TAI"
    both = context("11165,11166", time, False)["before"]
    parts = [context(noaa, time, False)["before"] for noaa in ("11165", "11166")]
    assert both["count"] == sum(part["count"] for part in parts)
    assert all(part["count"] for part in parts)
    assert both["flux"] == max(part["flux"] for part in parts)
    peaks = [flare["peak"] for flare in both["flares"]]
    assert peaks == sorted(peaks)


def test_many_records_equal_one_by_one() -> None:
    flares = read_flares()
    random = np.random.default_rng(1)
    pick = random.integers(len(flares.noaa), size=200)
    noaa: list[str | None] = [f"{flares.noaa[row]},{flares.noaa[row] + 1}" for row in pick]
    noaa[::9] = ["MISSING"] * len(noaa[::9])
    shift = random.integers(-90000, 90000, 200)
    times = [f"{np.datetime64(int(peak), 's')}Z" for peak in flares.peak[pick] + shift]
    found = windows(noaa, times, [False] * 200)
    seconds = utc_seconds(times)
    for place in range(200):
        mine = np.isin(flares.noaa, regions(noaa[place]))
        for side, low, high in (("after", 0, 86400), ("before", -86400, 0)):
            since = flares.peak - seconds[place]
            inside = flares.flux[mine & (since > low) & (since <= high)]
            known = bool(mine.any()) and flares.span[0] <= seconds[place] + low
            known &= seconds[place] + high <= flares.span[1]
            if not known and not regions(noaa[place]):
                assert found[side].count[place] == -1
            elif known:
                assert found[side].count[place] == len(inside)
                assert found[side].largest[place] == max(inside, default=0.0)
