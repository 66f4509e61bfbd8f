"""The local JSOC is as strict as the real one where a kind one would hide faults."""

from __future__ import annotations

import pytest

from tests.jsoc_answers import Refused, select, split_sets
from tests.jsoc_archive import SHARP, Archive, disk_archive, record_keywords

HMI = "hmi.M_720s"
FIRST = f"{HMI}[2014.01.01_00:00:00_TAI][1]"


@pytest.mark.parametrize(
    ("bracket", "found"),
    [
        ("2014.01.01_00:00:00_TAI", True),
        ("2014.01.01_TAI", True),
        ("2014.01.01_00:00:00", False),  # without zone: UTC
        ("2014-01-01T00:00:00Z", False),
        ("2013-12-31T23:59:25Z", True),  # TAI was 35 s ahead
        ("2013-12-31T23:59:00Z/1m", True),
        ("2014-01-01T00:00:00Z/1m", False),
        ("2013-12-31T23:00:00Z-2014.01.01_00:00:00_TAI", True),
    ],
)
def test_times_have_zones(bracket: str, found: bool) -> None:
    assert (FIRST in select(disk_archive(1), f"{HMI}[{bracket}]")) == found


def test_a_leap_second_is_a_second() -> None:
    archive = Archive()
    for text in ("2016-12-31T23:59:59Z", "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"):
        record = f"aia.lev1_euv_12s[{text}][193]"
        archive.keywords[record] = record_keywords(record)
    assert len(select(archive, "aia.lev1_euv_12s[2016-12-31T23:59:59Z/2s]")) == 2
    assert len(select(archive, "aia.lev1_euv_12s[2016-12-31T23:59:60Z/2s]")) == 2


@pytest.mark.parametrize(
    "text",
    [f"{SHARP}[1]{{Br}},hmi.M_720s[]{{magnetogram}}", f"{SHARP}[1]{{Br}} junk", f"{SHARP}[1]{{Br",
     f"{SHARP}[1],", "x" * 5000],
)  # fmt: skip
def test_what_is_no_list_of_record_sets(text: str) -> None:
    with pytest.raises(Refused):
        split_sets(text)


@pytest.mark.parametrize("text", ["2014.01.32_TAI", "2014.01.01_25:00:00_TAI", "yesterday"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Refused):
        select(disk_archive(1), f"{HMI}[{text}]")
