"""Names that become paths, and values that come from queries: whitelists and conversions."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from preprocess.acquire.jsoc import STORED_PATH, convert
from preprocess.acquire.sample import sample_files
from preprocess.archive import (
    compact_time,
    full_time,
    parse_record,
    relative_path,
    split_file_name,
)
from preprocess.manifest import Entry, merge, read_manifest, write_manifest
from sunpipe.config import validate
from sunpipe.errors import ConfigError, DataError

RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"


def test_names_there_and_back() -> None:
    path = relative_path(RECORD, "Br")
    assert path == ("hmi.sharp_cea_720s/377/20110215_020000_TAI/"
                    "hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits")  # fmt: skip
    assert split_file_name(path.rpartition("/")[2]) == (RECORD, "Br")
    assert full_time(compact_time("2011.02.15_02:00:00_TAI")) == "2011.02.15_02:00:00_TAI"


@pytest.mark.parametrize(
    ("record", "segment", "path"),
    [
        ("aia.lev1_euv_12s[2011-02-15T02:00:02Z][193]", "image",
         "aia.lev1_euv_12s/20110215/2011-02-15T020002Z.193/"
         "aia.lev1_euv_12s.2011-02-15T020002Z.193.image.fits"),
        ("hmi.M_720s[2011.02.15_02:00:00_TAI]", "magnetogram",
         "hmi.M_720s/20110215/20110215_020000_TAI/"
         "hmi.M_720s.20110215_020000_TAI.magnetogram.fits"),
        ("hmi.M_45s[2011.02.15_02:00:45_TAI][2]", "magnetogram",
         "hmi.M_45s/20110215/20110215_020045_TAI.2/"
         "hmi.M_45s.20110215_020045_TAI.2.magnetogram.fits"),
    ],
)  # fmt: skip
def test_full_disk_names_there_and_back(record: str, segment: str, path: str) -> None:
    assert relative_path(record, segment) == path
    assert split_file_name(path.rpartition("/")[2]) == (record, segment)
    assert str(parse_record(record)) == record


def test_every_bundled_file_has_a_name() -> None:
    assert len(sample_files()) == 15


@pytest.mark.parametrize(
    "record",
    [
        "hmi.sharp_cea_720s[377]",
        "hmi.M_720s[2011.02.15_02:00:00_TAI][0]",
        "aia.lev1_euv_12s[2011-02-15T02:00:02][193]",
        "aia.lev1_euv_12s[2011-02-15T02:00:02Z][193][1]",
        "hmi.sharp_cea_720s[0][2011.02.15_02:00:00_TAI]",
        "hmi.sharp_cea_720s[-1][2011.02.15_02:00:00_TAI]",
        "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]\n",
        "../hmi.sharp[377][2011.02.15_02:00:00_TAI]",
        "/etc/passwd[377][2011.02.15_02:00:00_TAI]",
        "hmi.sharp_cea_720s[377][../../x]",
        "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI][x]",
        f"hmi.{'x' * 300}[377][2011.02.15_02:00:00_TAI]",
        "",
    ],
)
def test_hostile_records_make_no_path(record: str) -> None:
    with pytest.raises(DataError):
        parse_record(record)


@pytest.mark.parametrize(
    ("t_rec", "was"),
    [
        ("2012.02.29_00:00:00_TAI", True),
        ("2012.02.31_00:00:00_TAI", False),
        ("2011.02.29_00:00:00_TAI", False),
        ("2012.13.01_00:00:00_TAI", False),
        ("0000.01.01_00:00:00_TAI", False),
        ("2012.01.01_24:00:00_TAI", False),
        ("2012.01.01_00:60:00_TAI", False),
        ("2012.06.30_23:59:60_TAI", False),  # TAI has no leap seconds
        ("2012-06-30T23:59:60Z", True),
        ("2012-06-30T12:00:60Z", False),
        ("2012-06-30T23:59:61Z", False),
        ("2012-02-31T00:00:00Z", False),
        ("2012.02.29_00:00:00.500_TAI", True),
    ],
)
def test_records_have_times_of_the_calendar(t_rec: str, was: bool) -> None:
    names = {"aia.lev1_euv_12s[{}][193]": "aia.lev1_euv_12s.{}.193.image.fits",
             "hmi.sharp_cea_720s[377][{}]": "hmi.sharp_cea_720s.377.{}.Br.fits"}  # fmt: skip
    for record, file in names.items():
        text, path = record.format(t_rec), file.format(compact_time(t_rec))
        if was:
            assert parse_record(text).t_rec == t_rec
            assert split_file_name(path) == (text, path.split(".")[-2])
            continue
        with pytest.raises(DataError, match="never was"):
            parse_record(text)
        assert split_file_name(path) is None


@pytest.mark.parametrize("segment", ["../Br", "Br/..", "", "Br\n", "-rf", ".", "B" * 33, "B r"])
def test_hostile_segments_make_no_path(segment: str) -> None:
    with pytest.raises(DataError):
        relative_path(RECORD, segment)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/SUM61/../../etc/passwd",
        "/SUM61/D1/S00000/../Br.fits",
        "//evil.example/SUM1/D1/S00000/Br.fits",
        "http://evil.example/Br.fits",
        "/SUM61/D1/S00000/.hidden",
        "/SUM61/D1/S00000/Br.fits\n",
        "/SUM61/D1/S00000/Br.fits?x=1",
    ],
)
def test_only_storage_units_are_fetched(path: str) -> None:
    assert STORED_PATH.fullmatch(path) is None


def test_a_storage_path() -> None:
    assert STORED_PATH.fullmatch("/SUM61/D41210987/S00000/Br.fits")


@pytest.mark.parametrize(
    ("text", "kind", "name", "value"),
    [
        ("0x80000000", "int", "QUALITY", -(2**31)),
        ("0x00000400", "int", "QUALITY", 1024),
        ("-2147483648", "int", "QUALITY", -(2**31)),
        ("-2147483648", "int", "NOAA_AR", None),
        ("-32768", "short", "X", None),
        ("377", "int", "HARPNUM", 377),
        ("2.71476e+22", "double", "USFLUX", 2.71476e22),
        ("nan", "float", "R_VALUE", None),
        ("MISSING", "double", "USFLUX", None),
        ("MISSING", "string", "NOAA_ARS", None),
        ("Invalid KeyLink", "string", "X", None),
        ("nan", "string", "X", "nan"),
        ("2011.02.15_02:00:00_TAI", "time", "T_REC", "2011.02.15_02:00:00_TAI"),
        ("junk", "int", "X", None),
    ],
)
def test_query_values(text: str, kind: str, name: str, value: object) -> None:
    assert convert(text, kind, name) == value


def asking(record_set: str) -> dict[str, object]:
    return {"record_set": record_set, "segments": ["Br"]}


@pytest.mark.parametrize(
    "record_set",
    [
        "hmi.sharp_cea_720s",
        "hmi.sharp_cea_720s[]",
        "hmi.sharp_cea_720s[][]",
        "hmi.sharp_cea_720s[377]{Br}",
        "hmi.sharp_cea_720s[377\n]",
        "../x[377]",
        "hmi.sharp_cea_720s[377],hmi.M_720s[]",
    ],
)
def test_record_sets_that_are_refused(record_set: str) -> None:
    with pytest.raises(ConfigError, match=r"query\.requests\.0\.record_set"):
        validate({"name": "x", "query": {"requests": [asking(record_set)]}})


@pytest.mark.parametrize(
    "record_set",
    [
        "hmi.sharp_cea_720s[377][2011.02.15_00:00:00_TAI/1d@12m]",
        "hmi.sharp_cea_720s[][2011.02.15_02:00:00_TAI]",
        "hmi.sharp_cea_720s[377][][? QUALITY >= 0 AND USFLUX > 1e22 ?]",
    ],
)
def test_record_sets_that_are_accepted(record_set: str) -> None:
    assert validate({"name": "x", "query": {"requests": [asking(record_set)]}}).query.requests


def entry(**changes: object) -> Entry:
    values = {"record": RECORD, "segment": "Br", "path": relative_path(RECORD, "Br"),
              "sha256": "0" * 64, "bytes": 1, "state": "fetched", "reason": "", "url": "",
              "time": ""}  # fmt: skip
    return Entry(**{**values, **changes})


def test_manifest_there_and_back(tmp_path) -> None:
    manifest = {item.key: item for item in (entry(), entry(segment="Bt", state="missing",
                path=relative_path(RECORD, "Bt"), reason="NoDataDirectory"))}  # fmt: skip
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_no_manifest_is_an_empty_archive(tmp_path) -> None:
    assert read_manifest(tmp_path) == {}


@pytest.mark.parametrize("changes", [{"path": "../../x.fits"}, {"path": "/etc/passwd"},
                                     {"state": "fine"}, {"record": "x"}])  # fmt: skip
def test_poisoned_manifests_are_refused(tmp_path, changes: dict[str, object]) -> None:
    bad = entry(**changes)
    write_manifest(tmp_path, {bad.key: bad})
    with pytest.raises(DataError):
        read_manifest(tmp_path)


def test_a_damaged_manifest_is_refused(tmp_path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="fetch"):
        read_manifest(tmp_path)


def test_a_manifest_of_the_first_version_is_read(tmp_path) -> None:
    item = entry()
    write_manifest(tmp_path, {item.key: item})
    path = tmp_path / "manifest.parquet"
    table = pq.read_table(path).drop_columns(["final"])
    pq.write_table(table.replace_schema_metadata({"sunpipe.manifest": "1"}), path)
    assert read_manifest(tmp_path) == {item.key: item}
    merge(tmp_path, [entry(segment="Bt", path=relative_path(RECORD, "Bt"))])
    assert len(read_manifest(tmp_path)) == 2
