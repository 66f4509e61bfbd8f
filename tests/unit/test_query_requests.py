"""Requests: times, conditions, record sets, gaps."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.acquire.conditions import noaa_clause, parse_condition, spell, where_clause
from preprocess.acquire.coverage import coverage, time_gaps
from preprocess.acquire.request import native_cadence_s, record_sets
from preprocess.archive import RecordName, parse_record
from preprocess.times import from_tai_seconds, jsoc_time, parse_time, seconds_of, tai_seconds
from sunpipe.config import load_config, validate
from sunpipe.errors import ConfigError
from sunpipe.query_settings import registered_email
from tests.conftest import REPO, Cli

CONFIGS = sorted((REPO / "configs").glob("data_*.toml"))


@pytest.mark.parametrize(
    ("text", "scale", "found"),
    [
        ("2011-02-15", "tai", datetime(2011, 2, 15)),
        ("2011.02.15_02:00:00_TAI", "tai", datetime(2011, 2, 15, 2)),
        ("2011-02-15T02:00", "utc", datetime(2011, 2, 15, 2, 0, 34)),
        ("2011-02-15T02:00:00Z", "tai", datetime(2011, 2, 15, 2, 0, 34)),
        ("2017.01.01_00:00:37_TAI", "utc", datetime(2017, 1, 1, 0, 0, 37)),
        ("2016-12-31T23:59:60Z", "tai", datetime(2017, 1, 1, 0, 0, 36)),
        ("2017-01-01", "utc", datetime(2017, 1, 1, 0, 0, 37)),
        ("2011-02-15T02:00:02.500Z", "utc", datetime(2011, 2, 15, 2, 0, 36, 500000)),
        ("2099-01-01T00:00:00Z", "tai", datetime(2099, 1, 1, 0, 0, 37)),
    ],
)
def test_times(text: str, scale: str, found: datetime) -> None:
    assert parse_time(text, scale) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2011",
        "2011-02-30",
        "15.02.2011",
        "2011-02-15 or 1=1",
        "2016-12-31T23:59:60_TAI",
        "2015-12-31T23:59:60Z",
        "2016-12-31T23:58:60Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_time(text, "tai")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("2011-02-15T02:00:00Z", "2011.02.15_02:00:34_TAI"),
        ("2012-06-30T23:59:60Z", "2012.07.01_00:00:34_TAI"),
        ("2016-12-31T23:59:59Z", "2017.01.01_00:00:35_TAI"),
        ("2016-12-31T23:59:60Z", "2017.01.01_00:00:36_TAI"),
        ("2017-01-01T00:00:00Z", "2017.01.01_00:00:37_TAI"),
    ],
)
def test_times_in_record_sets(text: str, other: str) -> None:
    found = parse_time(text, "tai")
    assert found == parse_time(other, "utc")
    assert (jsoc_time(found, "utc"), jsoc_time(found, "tai")) == (text, other)
    assert seconds_of(found) == tai_seconds([text])[0] == tai_seconds([other])[0]
    assert from_tai_seconds(seconds_of(found)) == found


def test_batches_do_not_leave_out_a_leap_second() -> None:
    aia = {"series": "aia.lev1_euv_12s", "cadence": "12s", "batch_slots": 10000, "batch_days": 1}
    found = sets(**aia, start="2016-12-31", end="2017-01-02")
    assert found[:2] == ["aia.lev1_euv_12s[2016-12-31T00:00:00Z/86400s@12s]",
                         "aia.lev1_euv_12s[2016-12-31T23:59:60Z/86400s@12s]"]  # fmt: skip
    assert found[2:] == ["aia.lev1_euv_12s[2017-01-01T23:59:59Z/1s@12s]"]
    assert sets(**aia, start="2017.01.01_00:00:36_TAI", end="2017-01-01T00:00:24Z") == [
        "aia.lev1_euv_12s[2016-12-31T23:59:60Z/25s@12s]"
    ]


def test_any_record_can_be_counted() -> None:
    texts = ["2016-12-31T23:59:48Z", "2016-12-31T23:59:60Z", "2017-13-45T00:00:00Z",
             "2017-01-01T00:00:35Z"]  # fmt: skip
    names = [RecordName("aia.lev1_euv_12s", text, None, 193) for text in texts]
    report = coverage(names, 12, None, scale="utc")
    assert (report["missing_slots"], report["unreadable_times"]) == (2, 1)
    assert report["longest_gaps"] == [{"of": "wavelength 193", "slots": 2,
                                       "after": "2016-12-31T23:59:60Z",
                                       "before": "2017-01-01T00:00:35Z"}]  # fmt: skip
    assert coverage(names[2:3], 12, None)["unreadable_times"] == 1


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("USFLUX > 1e22", "USFLUX > 1e22"),
        ("  lon_fwt<=-60.5 ", "lon_fwt <= -60.5"),
        ("QUALITY == 0", "QUALITY = 0"),
        ("QUALITY <> 0x80000000", "QUALITY != -2147483648"),
        ("NOAA_ARS = '11158,11160'", "NOAA_ARS = '11158,11160'"),
        ('TELESCOP = "SDO/HMI"', "TELESCOP = 'SDO/HMI'"),
    ],
)
def test_conditions(text: str, sql: str) -> None:
    assert str(parse_condition(text)) == sql


@pytest.mark.parametrize(
    "text",
    ["", "USFLUX", "USFLUX > ", "> 1", "USFLUX > 1 AND 1 = 1", "USFLUX > 1; --", "A = 'x'' OR ''1'",
     "A = 'x' OR 'y'", "A LIKE '%'", "A IN (1, 2)", "A = B", "A = 'x]'", "A = 'x?'", "A = \"x'y\"",
     "A > 1e9999", "A\n> 1 ?]", "A > nan"],
)  # fmt: skip
def test_nothing_else_gets_into_a_clause(text: str) -> None:
    with pytest.raises(ConfigError, match="is not KEYWORD OPERATOR VALUE"):
        parse_condition(text)


def test_clauses() -> None:
    conditions = spell([parse_condition("usflux > 1")], ["T_REC", "USFLUX"], "s")
    assert where_clause([]) == ""
    assert where_clause(conditions) == "[? USFLUX > 1 ?]"
    text = where_clause(conditions, [11158])
    assert text == f"[? {noaa_clause([11158])} AND USFLUX > 1 ?]"
    with pytest.raises(ConfigError, match="s has no keyword USFLUX"):
        spell(conditions, ["T_REC"], "s")


def sets(**changes: Any) -> list[str]:
    values = {"series": "hmi.sharp_cea_720s", "start": "2011-02-10", "end": "2011-02-21",
              "segments": ["Br"], **changes}  # fmt: skip
    query = {"requests": [values], "batch_days": values.pop("batch_days", 31),
             "batch_slots": values.pop("batch_slots", 1000)}  # fmt: skip
    config = validate({"name": "x", "query": query})
    return record_sets(config.query.requests[0], config.query)


def test_record_sets() -> None:
    start = "2011.02.10_00:00:00_TAI"
    assert sets(cadence="6h", harps=[401, 377, 377]) == [
        f"hmi.sharp_cea_720s[377,401][{start}/950400s@6h]"
    ]
    assert len(sets(cadence="6h", harps=list(range(1, 251)))) == 3
    assert sets(cadence="6h", batch_days=5)[1] == (
        "hmi.sharp_cea_720s[][2011.02.15_00:00:00_TAI/432000s@6h]"
    )
    wide = sets(series="aia.lev1_euv_12s", wavelengths=[193, 171], batch_slots=100)
    assert len(wide) == 1584  # 79,200 slots of 12 s, 50 for each wavelength
    assert wide[0] == "aia.lev1_euv_12s[2011-02-10T00:00:00Z/600s][171,193]"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"segments": []}, "segments is empty"),
        ({"series": ""}, "needs series, start and end"),
        ({"record_set": "hmi.sharp_cea_720s[377]"}, "nothing else"),
        ({"where": [f"HARPNUM != {n}" for n in range(1000, 1300)]}, "a record set has"),
        ({"cadence": "6 h"}, "cadence"),
        ({"harps": [0]}, "harps"),
        ({"series": "../x"}, "series"),
        ({"start": "yesterday"}, "start"),
        ({"harp": [1]}, "harp: unknown key"),
    ],
)
def test_requests_that_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sets(**changes)


@pytest.mark.parametrize(
    ("brackets", "good"),
    [("[377]", True), ("[][2011.02.15_TAI]", True), ("[377][? QUALITY >= 0 ?]", True),
     ("[$]", True),
     ("", False), ("[]", False), ("[][ ]", False), ("[? 1=1 ?]", False), ("[?1=1?]", False),
     ("[][! 1=1 !]", False), ("[ ? 1=1 ? ]", False)],
)  # fmt: skip
def test_a_record_set_names_prime_keys(brackets: str, good: bool) -> None:
    request = {"record_set": f"hmi.sharp_cea_720s{brackets}", "segments": ["Br"]}
    values = {"name": "x", "query": {"requests": [request]}}
    if good:
        validate(values)
        return
    with pytest.raises(ConfigError, match="a series with prime keys"):
        validate(values)


def test_cadences_of_series() -> None:
    assert native_cadence_s("hmi.sharp_cea_720s") == 720
    assert native_cadence_s("hmi.sharp_cea_720s_nrt") == 720
    assert native_cadence_s("aia.lev1_vis_1h") == 3600
    assert native_cadence_s("hmi.other") is None


def slots(*numbers: int) -> NDArray[np.float64]:
    return np.array([3600.0 * n + 1 for n in numbers])


def test_gaps() -> None:
    span = (0.0, 36000.0)
    assert time_gaps(slots(*range(10)), 3600, span) == (10, [])
    expected, gaps = time_gaps(slots(2, 3, 7), 3600, span)
    assert expected == 10
    assert sorted(lost for lost, _, _ in gaps) == [2, 2, 3]
    assert time_gaps([], 3600, span)[1][0][0] == 10
    assert time_gaps(slots(2, 3, 7), 3600) == (6, [(3, 10801.0, 25201.0)])


def test_cameras_take_turns_and_wavelengths_do_not() -> None:
    span = (datetime(2014, 1, 1), datetime(2014, 1, 1, 2))
    names = [parse_record(f"hmi.M_720s[2014.01.01_0{h}:00:00_TAI][{h + 1}]") for h in (0, 1)]
    assert coverage(names, 3600, span)["missing_slots"] == 0
    names = [parse_record(f"aia.lev1_vis_1h[2014-01-01T0{h}:00:00Z][4500]") for h in (0, 1)]
    report = coverage(names, 3600, span, [4500, 1600])
    assert (report["expected_slots"], report["missing_slots"]) == (4, 2)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_requests(path: Path) -> None:
    config = load_config(path)
    assert config.fetch.source == "jsoc"
    assert config.query.requests
    for request in config.query.requests:
        for text in record_sets(request, config.query):
            assert text.startswith(f"{request.series}[")
            assert len(text) < 1000


def test_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = validate({"name": "x", "fetch": {"email": "a@example.org"}}).fetch
    monkeypatch.setenv("JSOC_EMAIL", "b@example.org")
    assert registered_email(settings) == "a@example.org"
    assert registered_email(validate({"name": "x"}).fetch) == "b@example.org"
    with pytest.raises(ConfigError, match=r"fetch\.email"):
        validate({"name": "x", "fetch": {"email": "a@b&notify=x"}})


@pytest.mark.parametrize("command", ["query", "fetch"])
def test_the_address_is_not_printed(root: Path, cli: Cli, tmp_path: Path, command: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text('name = "x"\n[fetch]\nsource = "jsoc"\nemail = "someone@example.org"\n'
                    '[[query.requests]]\nrecord_set = "hmi.M_720s[2014.01.01_TAI]"\n'
                    'segments = ["magnetogram"]\n')  # fmt: skip
    done = cli(command, "-c", path, "--dry-run")
    assert "someone" not in done.stdout + done.stderr
    assert ('"email": "***"' in done.stderr) == (command == "fetch")
