"""``sunpipe query``: requests to record sets, and what is found into the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import Entry, read_manifest
from preprocess.query import query as query_stage
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError
from sunpipe.fits import read_segment
from tests.conftest import REAL_FILES, Cli
from tests.jsoc_archive import (
    SHARP,
    Archive,
    disk_archive,
    record_keywords,
    sample_archive,
    stored_bytes,
    tiny_archive,
    tiny_fits,
)
from tests.jsoc_server import JsocServer

pytestmark = pytest.mark.usefixtures("root")
SPAN = {"start": "2012-01-01", "end": "2012-01-02"}


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    with JsocServer(tiny_archive(80)) as server:  # HARP 1 and 2, 40 slots of 720 s each
        yield server


@pytest.fixture
def disk() -> Iterator[JsocServer]:
    with JsocServer(disk_archive()) as server:  # 12 slots of 6 h
        yield server


def config(server: JsocServer, *requests: dict[str, Any], **query: Any) -> Any:
    fetch = {"source": "jsoc", "url": server.url, "retry_wait_s": 0.01, "timeout_s": 10.0}
    return validate({"name": "test", "fetch": fetch, "query": {"requests": requests, **query}})


def sharp(**changes: Any) -> dict[str, Any]:
    return {"series": SHARP, **SPAN, "segments": ["Br"], **changes}


def ask(server: JsocServer, *requests: dict[str, Any], **query: Any) -> dict[str, Any]:
    return query_stage(config(server, *requests, **query))


def states(root: Path) -> dict[tuple[str, str], Entry]:
    return read_manifest(root / "archive")


def test_a_request_becomes_wanted_rows(root: Path, jsoc: JsocServer) -> None:
    result = ask(jsoc, sharp(harps=[1], cadence="1h", segments=["Br", "Bt"]))
    assert (result["records"], result["wanted"], result["new_segments"]) == (8, 16, 16)
    assert result["requests"][0]["missing_slots"] == 0
    assert result["known_bytes"] == 8 * 3 * 5760  # what JSOC stores, all segments of a record
    wanted = [e for e in states(root).values() if e.state == "wanted"]
    assert len(wanted) == 16
    assert all(entry.url.startswith(jsoc.url + "SUM61/") for entry in wanted)
    assert jsoc.downloads() == []
    assert jsoc.asked("rs_list") == [f"{SHARP}[1][2012.01.01_00:00:00_TAI/86400s@1h]"]


def test_conditions_and_harps_narrow_it(root: Path, jsoc: JsocServer) -> None:
    result = ask(jsoc, sharp(harps=[1, 2], where=["USFLUX > 2e22", "quality >= 0x0"]))
    assert result["records"] == 2 * 20
    assert "[? USFLUX > 2e22 AND QUALITY >= 0 ?]" in jsoc.asked("rs_list")[0]


def test_regions_are_found_by_their_numbers(root: Path, jsoc: JsocServer) -> None:
    names = sorted(jsoc.archive.keywords)
    for place, record in enumerate(names):
        several = "11158,11166" if place == 1 else "111580" if place == 2 else "MISSING"
        jsoc.archive.keywords[record] |= {"NOAA_AR": 11158 if place == 0 else 0,
                                          "NOAA_ARS": several}  # fmt: skip
    result = ask(jsoc, sharp(noaa=[11158]))
    assert result["records"] == 2  # not 111580, which LIKE finds too
    assert {record for record, _ in states(root)} == set(names[:2])


def test_a_long_span_is_asked_in_batches_with_the_same_slots(root: Path, jsoc: JsocServer) -> None:
    whole = ask(jsoc, sharp(cadence="24m"))["records"]
    jsoc.requests.clear()
    assert ask(jsoc, sharp(cadence="24m", max_records=999), batch_slots=7)["records"] == whole == 40
    sets = jsoc.asked("rs_list")
    assert len(sets) == 9  # 60 slots, 7 each
    assert all("@24m]" in text for text in sets)
    assert sets[1] == f"{SHARP}[][2012.01.01_02:48:00_TAI/10080s@24m]"


def test_too_many_records_are_refused(jsoc: JsocServer) -> None:
    with pytest.raises(DataError, match="max_records = 10"):
        ask(jsoc, sharp(max_records=10))
    assert [
        parse_qs(urlsplit(r.path).query)["n"] for r in jsoc.requests if "rs_list" in r.path
    ] == [["11"]]  # JSOC need not list more to say so
    assert ask(jsoc, sharp(max_records=80))["records"] == 80


def test_a_query_that_was_stopped_goes_on(root: Path, jsoc: JsocServer, capfd: Any) -> None:
    request = sharp(cadence="24m")
    whole = ask(jsoc, sharp(cadence="24m", max_records=99), batch_slots=7)["requests"][0]
    (root / "archive/manifest.parquet").unlink()
    jsoc.requests.clear()
    jsoc.faults["2012.01.01_11"] = ["404"]  # the fifth batch of nine
    with pytest.raises(DataError, match="cannot be reached"):
        ask(jsoc, request, batch_slots=7)
    first = jsoc.asked("rs_list")
    assert len(first) == 5
    jsoc.requests.clear()
    report = ask(jsoc, request, batch_slots=7)["requests"][0]
    assert jsoc.asked("rs_list")[0] == first[4]
    assert len(jsoc.asked("rs_list")) == 5
    assert report == whole
    assert "4/9" in capfd.readouterr().err
    jsoc.requests.clear()
    ask(jsoc, request, batch_slots=7)  # one that had its answer is asked anew
    assert len(jsoc.asked("rs_list")) == 9
    assert not [path for path in (root / "archive/queries").iterdir() if path.is_dir()]


@pytest.mark.parametrize("what", ["rows", "time"])
def test_batches_are_asked_again_when_they_hold_no_more(
    root: Path, jsoc: JsocServer, what: str
) -> None:
    jsoc.faults["2012.01.01_05:36"] = ["404"]  # the third batch of nine
    with pytest.raises(DataError, match="cannot be reached"):
        ask(jsoc, sharp(cadence="24m"), batch_slots=7)
    if what == "rows":
        (root / "archive/manifest.parquet").unlink()
    for path in (root / "archive/queries").rglob("*.parquet"):
        os.utime(path, (1, 1)) if what == "time" else None
    jsoc.requests.clear()
    assert ask(jsoc, sharp(cadence="24m"), batch_slots=7)["records"] == 40
    assert len(jsoc.asked("rs_list")) == 9


def test_many_regions_are_asked_in_batches(root: Path, jsoc: JsocServer) -> None:
    names = sorted(jsoc.archive.keywords)
    for record in names:
        jsoc.archive.keywords[record] |= {"NOAA_AR": 0, "NOAA_ARS": "MISSING"}
    jsoc.archive.keywords[names[0]]["NOAA_ARS"] = "11001,11100"  # of two batches
    report = ask(jsoc, sharp(noaa=list(range(11001, 11101))))["requests"][0]
    assert (report["records"], report["duplicates"]) == (1, 0)
    assert report["known_bytes"] == 3 * 5760
    assert len(jsoc.asked("rs_list")) == 4
    assert max(map(len, jsoc.asked("rs_list"))) < 3500


def test_gaps_duplicates_and_records_without_image_are_told(root: Path, jsoc: JsocServer) -> None:
    names = [r for r in jsoc.archive.keywords if r.startswith(f"{SHARP}[1]")]
    for record in names[5:9]:
        del jsoc.archive.keywords[record]
    jsoc.overrides[names[0], "QUALITY"] = "0x80000000"
    jsoc.missing.add((names[0], "Br"))
    jsoc.overrides[names[2], "T_REC"] = "2012.01.01_00:12:00_TAI"  # of names[1]
    report = ask(jsoc, sharp(harps=[1]))["requests"][0]
    assert report["records"] == 35
    assert (report["duplicates"], report["without_image"], report["missing"]) == (1, 1, 1)
    assert (report["expected_slots"], report["missing_slots"], report["gaps"]) == (40, 5, 2)
    worst = report["longest_gaps"][0]
    assert worst == {"of": "HARP 1", "slots": 4, "after": "2012.01.01_00:48:00_TAI",
                     "before": "2012.01.01_01:48:00_TAI"}  # fmt: skip
    entry = states(root)[names[0], "Br"]
    assert (entry.state, entry.final) == ("missing", True)


def test_a_second_query_adds_what_is_new_and_keeps_states(root: Path, jsoc: JsocServer) -> None:
    held = jsoc.archive.keywords.popitem()
    assert ask(jsoc, sharp())["new_segments"] == 79
    fetch_stage(config(jsoc, sharp()))
    before = states(root)
    jsoc.archive.keywords.update([held])
    result = ask(jsoc, sharp())
    assert (result["new_segments"], result["fetched"], result["wanted"]) == (1, 79, 1)
    assert {key: entry for key, entry in states(root).items() if key in before} == before
    assert fetch_stage(config(jsoc, sharp()))["new"] == 1
    assert len(jsoc.downloads()) == 80


def test_a_fetch_asks_first_and_only_once(root: Path, jsoc: JsocServer, capfd: Any) -> None:
    asked = config(jsoc, sharp(harps=[1], cadence="2h"), sharp(harps=[2], cadence="4h"))
    assert fetch_stage(asked)["fetched"] == 4 + 2
    assert "2 requests were never put to the archive" in capfd.readouterr().err
    fetch_stage(asked)
    assert len(jsoc.asked("rs_list")) == 2
    more = config(jsoc, sharp(harps=[1], cadence="2h"), sharp(harps=[2], cadence="2h"))
    assert fetch_stage(more)["new"] == 2


def test_other_requests_of_the_archive_are_left_alone(root: Path, jsoc: JsocServer) -> None:
    ask(jsoc, sharp(harps=[1]))
    assert fetch_stage(config(jsoc, sharp(harps=[2], cadence="4h")))["fetched"] == 2
    assert len(jsoc.downloads()) == 2


def test_aia_and_hmi_full_disk(root: Path, disk: JsocServer) -> None:
    aia = {"series": "aia.lev1_euv_12s", "start": "2014-01-01", "end": "2014-01-04",
           "cadence": "6h", "wavelengths": [193, 171], "segments": ["image"]}  # fmt: skip
    hmi = {"series": "hmi.M_720s", "start": "2014-01-01", "end": "2014-01-04", "cadence": "12h",
           "segments": ["magnetogram"]}  # fmt: skip
    result = fetch_stage(config(disk, aia, hmi))
    assert (result["records"], result["fetched"]) == (24 + 6, 30)
    sets = disk.asked("rs_list")
    assert sets[0] == "aia.lev1_euv_12s[2014-01-01T00:00:00Z/259200s@6h][171,193]"
    assert sets[1] == "hmi.M_720s[2014.01.01_00:00:00_TAI/259200s@12h]"
    name = "aia.lev1_euv_12s[2014-01-01T00:00:01Z][193]"
    entry = states(root)[name, "image"]
    assert entry.url.endswith("/image_lev1.fits")
    assert entry.path == ("aia.lev1_euv_12s/20140101/2014-01-01T000001Z.193/"
                          "aia.lev1_euv_12s.2014-01-01T000001Z.193.image.fits")  # fmt: skip
    assert (root / "archive" / entry.path).is_file()
    assert ("hmi.M_720s[2014.01.01_12:00:00_TAI][1]", "magnetogram") in states(root)


@pytest.mark.real_files
@pytest.mark.parametrize("ranges", [True, False])
def test_real_full_disks_survive_a_broken_transfer(root: Path, ranges: bool) -> None:
    held = {
        ("aia.lev1_euv_12s[2018-08-20T12:48:06Z][193]", "image", "image_lev1"):
            REAL_FILES / "aia_fulldisk/AIA20180820_1248_0193.fits",
        ("hmi.M_720s[2018.08.20_09:00:00_TAI][1]", "magnetogram", ""):
            REAL_FILES / "hmi_fulldisk/hmi.M_720s_nrt.20180820_090000_TAI.fits",
    }  # fmt: skip
    archive = Archive()
    for (record, segment, file), path in held.items():
        archive.keywords[record] = record_keywords(record)
        archive.add(record, segment, stored_bytes(path), file)
    requests = [{"record_set": record, "segments": [segment]} for record, segment, _ in held]
    with JsocServer(archive) as server:
        server.ranges = ranges
        server.faults[".fits"] = ["short", "reset", "short"]
        assert fetch_stage(config(server, *requests))["fetched"] == 2
    for (record, segment, _), path in held.items():
        found = read_segment(root / "archive" / states(root)[record, segment].path)
        wanted = read_segment(path)
        np.testing.assert_array_equal(found.data, wanted.data)


def test_a_wavelength_that_is_not_there_is_a_gap(root: Path, disk: JsocServer) -> None:
    aia = {"series": "aia.lev1_euv_12s", "start": "2014-01-01", "end": "2014-01-04",
           "cadence": "6h", "wavelengths": [193, 94], "segments": ["image"]}  # fmt: skip
    report = ask(disk, aia)["requests"][0]
    assert (report["expected_slots"], report["missing_slots"]) == (24, 12)
    assert report["longest_gaps"][0]["of"] == "wavelength 94"


def test_utc_and_tai_mean_what_they_say(disk: JsocServer) -> None:
    hmi = {"series": "hmi.M_720s", "segments": ["magnetogram"], "end": "2014-01-04"}
    ask(disk, {**hmi, "start": "2014-01-01T00:00:00Z"})
    assert "[2014.01.01_00:00:35_TAI/" in disk.asked("rs_list")[0]  # 35 leap seconds
    aia = {"series": "aia.lev1_euv_12s", "segments": ["image"], "wavelengths": [193]}
    ask(disk, {**aia, "start": "2014.01.01_00:00:35_TAI", "end": "2014-01-01T06:00:00"})
    assert "[2014-01-01T00:00:00Z/12000s]" in disk.asked("rs_list")[1]  # 1000 slots of 12 s


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"where": ["NO_SUCH > 1"]}, "no keyword NO_SUCH"),
        ({"where": ["USFLUX > 1 OR 1 = 1"]}, "is not KEYWORD OPERATOR VALUE"),
        ({"where": ["USFLUX > 1 ?][? 1 = 1"]}, "is not KEYWORD OPERATOR VALUE"),
        ({"where": ["NOAA_ARS = '1' OR '1' = '1'"]}, "is not KEYWORD OPERATOR VALUE"),
        ({"start": "2012-13-01"}, "is no time"),
        ({"end": "2011-01-01"}, "is not after start"),
        ({"wavelengths": [193]}, "no wavelengths"),
        ({"segments": ["Bx"]}, "no segment Bx"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(jsoc: JsocServer, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        ask(jsoc, sharp(**changes))
    assert jsoc.asked("rs_list") == []


def test_a_leap_second_is_asked_for_and_kept(root: Path) -> None:
    archive = Archive()
    for text in ("2016-12-31T23:59:48Z", "2016-12-31T23:59:60Z", "2017-01-01T00:00:11Z"):
        record = f"aia.lev1_euv_12s[{text}][193]"
        archive.keywords[record] = record_keywords(record)
        archive.add(record, "image", tiny_fits(1), "image_lev1")
    aia = {"series": "aia.lev1_euv_12s", "start": "2016-12-31T23:59:48", "segments": ["image"],
           "end": "2017-01-01T00:00:23", "wavelengths": [193]}  # fmt: skip
    with JsocServer(archive) as server:
        report = ask(server, aia, batch_slots=1)["requests"][0]
        assert (report["records"], report["missing_slots"]) == (3, 0)
        assert [text.split("[")[1] for text in server.asked("rs_list")] == [
            "2016-12-31T23:59:48Z/12s]", "2016-12-31T23:59:60Z/12s]", "2017-01-01T00:00:11Z/12s]"
        ]  # fmt: skip
        assert fetch_stage(config(server, aia, batch_slots=1))["fetched"] == 3
        late = {**aia, "start": "2017.01.01_00:00:36_TAI"}
        assert ask(server, late)["records"] == 2


@pytest.mark.parametrize(
    ("online", "tape", "state"),
    [
        ("N", "Y", "staged"),
        ("N", "Pending", "staged"),
        ("N", "N", "missing"),
        ("Y", "Y", "missing"),
    ],
)
def test_what_is_offline_is_ordered_only_from_tape(
    root: Path, jsoc: JsocServer, online: str, tape: str, state: str
) -> None:
    record = min(jsoc.archive.keywords)
    jsoc.overrides |= {(record, "*online*"): online, (record, "*archive*"): tape}
    jsoc.missing.add((record, "Br"))
    assert ask(jsoc, sharp(harps=[1], cadence="4h"))[state] == 1
    assert states(root)[record, "Br"].state == state


def test_harps_of_a_full_disk_series_are_refused(disk: JsocServer) -> None:
    with pytest.raises(ConfigError, match="no HARPs"):
        ask(disk, {"series": "hmi.M_720s", **SPAN, "harps": [1], "segments": ["magnetogram"]})


def test_the_command(root: Path, cli: Cli, tmp_path: Path) -> None:
    with JsocServer(sample_archive()) as server:
        path = tmp_path / "c.toml"
        path.write_text(
            f'name = "test"\n[fetch]\nsource = "jsoc"\nurl = "{server.url}"\n'
            "[[query.requests]]\n"
            f'series = "{SHARP}"\nstart = "2015-10-29"\nend = "2015-10-31"\nsegments = ["Br"]\n'
        )
        dry = cli("query", "-c", path, "--dry-run", "--json")
        assert f"{SHARP}[][2015.10.29_00:00:00_TAI/172800s]" in dry.stdout
        assert list(root.iterdir()) == []
        done = cli("query", "-c", path, "--json")
        assert json.loads(done.stdout)["wanted"] == 2
        assert "2 records, 2 new segments" in done.stderr
