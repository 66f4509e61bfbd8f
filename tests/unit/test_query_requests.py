"""Requests: times, conditions, record sets, gaps."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from preprocess.acquire.conditions import noaa_clause, parse_condition, spell, where_clause
from preprocess.acquire.coverage import coverage, time_gaps
from preprocess.acquire.request import native_cadence_s, record_sets
from preprocess.archive import parse_record
from preprocess.times import jsoc_time, parse_time, record_time
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
        ("2011-02-15T02:00", "utc", datetime(2011, 2, 15, 2)),
        ("2011-02-15T02:00:00Z", "tai", datetime(2011, 2, 15, 2, 0, 34)),
        ("2017.01.01_00:00:37_TAI", "utc", datetime(2017, 1, 1)),
        ("2011-02-15T02:00:02.500Z", "utc", datetime(2011, 2, 15, 2, 0, 2, 500000)),
    ],
)
def test_times(text: str, scale: str, found: datetime) -> None:
    assert parse_time(text, scale) == found


@pytest.mark.parametrize("text", ["", "2011", "2011-02-30", "15.02.2011", "2011-02-15 or 1=1"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_time(text, "tai")


def test_times_of_records_and_record_sets() -> None:
    assert record_time("2011-02-15T02:00:02Z") == datetime(2011, 2, 15, 2, 0, 2)
    assert jsoc_time(datetime(2011, 2, 15, 2), "tai") == "2011.02.15_02:00:00_TAI"
    assert jsoc_time(datetime(2011, 2, 15, 2), "utc") == "2011-02-15T02:00:00Z"


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


def test_cadences_of_series() -> None:
    assert native_cadence_s("hmi.sharp_cea_720s") == 720
    assert native_cadence_s("hmi.sharp_cea_720s_nrt") == 720
    assert native_cadence_s("aia.lev1_vis_1h") == 3600
    assert native_cadence_s("hmi.other") is None


def slots(*numbers: int) -> list[datetime]:
    return [datetime(2014, 1, 1) + timedelta(hours=n, seconds=1) for n in numbers]


def test_gaps() -> None:
    span = (datetime(2014, 1, 1), datetime(2014, 1, 1, 10))
    assert time_gaps(slots(*range(10)), 3600, span) == (10, [])
    expected, gaps = time_gaps(slots(2, 3, 7), 3600, span)
    assert expected == 10
    assert sorted(lost for lost, _, _ in gaps) == [2, 2, 3]
    assert time_gaps([], 3600, span)[1][0][0] == 10
    assert time_gaps(slots(2, 3, 7), 3600) == (6, [(3, "2014-01-01T03:00:01",
                                                    "2014-01-01T07:00:01")])  # fmt: skip


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
