"""AIA's response and pointing tables: what is shipped, and what aiapy makes of the same files."""

from __future__ import annotations

import hashlib
import warnings
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from preprocess.calibrate import DiskSettings, calibrate_aia
from preprocess.calibration.degradation import EUV_TABLE, TABLES, UV_TABLE, degradation
from preprocess.calibration.pointing import read_pointing, repoint
from preprocess.calibration.times import utc
from sunpipe.fits import Segment
from sunpipe.fitsfile import FitsError
from tests.unit.disk_fake import aia_cards

EUV = (94, 131, 171, 193, 211, 304, 335)
POINTING = """T_START,T_STOP,A_193_X0,A_193_Y0,A_193_IMSCALE,A_193_INSTROT
2012-05-31T21:00:00Z,2012-06-01T00:00:00Z,2040.0,2045.0,0.6,0.05
2012-06-01T00:00:00Z,2012-06-01T03:00:00Z,2041.5,2046.25,0.600698,0.0571
2012-06-01T03:00:00Z,2012-06-01T06:00:00Z,MISSING,2046.25,0.600698,
"""


def test_the_tables_are_the_ones_of_the_provenance() -> None:
    text = (TABLES / "PROVENANCE.md").read_text()
    for path in (EUV_TABLE, UV_TABLE):
        assert f"`{path.name}`" in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text


def test_golden_factors() -> None:
    # The first epoch of version 10 begins on 2010-03-24 with A_eff 1.43232 cm^2.
    start = datetime(2010, 3, 24)
    assert degradation(193, start).factor == 1.0
    later = degradation(193, start + timedelta(days=100))
    assert later.factor == pytest.approx(1 - 0.000060 * 100)
    assert later.version == "10 of 2020-10-26"
    in_2016 = degradation(304, datetime(2015, 5, 1, 12) + timedelta(days=200))
    assert in_2016.factor == pytest.approx(0.01090 / 0.10250 * (1 - 0.000418 * 200))
    ultraviolet = degradation(1600, datetime(2014, 6, 1))
    assert (ultraviolet.version, ultraviolet.table) == ("8 of 2017-12-10", UV_TABLE.name)


def test_aiapy_finds_the_same_factors() -> None:
    pytest.importorskip("aiapy")
    import astropy.units as u
    from aiapy.calibrate import degradation as theirs
    from aiapy.calibrate.util import get_correction_table
    from astropy.time import Time

    times = [datetime(2010, 5, 1) + timedelta(days=397.3 * n) for n in range(14)]
    for path, channels in ((EUV_TABLE, EUV), (UV_TABLE, (1600, 1700))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # erfa: the year 2030 is far
            table = get_correction_table(path)
            for channel in channels:
                factors = theirs(channel * u.angstrom, Time(times), correction_table=table)
                ours = [degradation(channel, time, path).factor for time in times]
                # Leap seconds are the difference: aiapy's days are TAI's.
                np.testing.assert_allclose(ours, factors.value, rtol=1e-6)


@pytest.mark.parametrize(("channel", "time", "match"), [
    (193, datetime(2009, 1, 1), "no epoch"), (193, datetime(2031, 1, 1), "no epoch"),
    (4500, datetime(2012, 1, 1), "no epoch"),
])  # fmt: skip
def test_no_epoch_no_factor(channel: int, time: datetime, match: str) -> None:
    with pytest.raises(FitsError, match=match) as caught:
        degradation(channel, time)
    assert caught.value.reason == "no_table"


def test_a_sensitivity_below_zero_is_refused() -> None:
    # Version 8 was fitted to 2017 and runs out of range for 304 A.
    with pytest.raises(FitsError, match="sensitivity"):
        degradation(304, datetime(2020, 9, 1), UV_TABLE)


COLUMNS = "DATE T_START T_STOP VER_NUM WAVE_STR EFF_AREA EFFA_P1 EFFA_P2 EFFA_P3\n"
FIRST = "2020-01-01T00:00:00 2020-01-01T00:00:00"


@pytest.mark.parametrize("text", [
    None, b"", b"\xff\xfe", b"DATE T_START\n", COLUMNS.encode() + b"1 2 3\n",
    f"{COLUMNS}{FIRST} 2030-13-01T00:00:00 9 193_THIN 1 0 0 0\n".encode(),
    f"{COLUMNS}{FIRST} 2030-01-01T00:00:00 9 193_THIN 0 0 0 0\n".encode(),
    f"{COLUMNS}{FIRST} 2030-01-01T00:00:00 9 193_THIN x 0 0 0\n".encode(),
])  # fmt: skip
def test_a_bad_table_is_refused(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "table.txt"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(FitsError) as caught:
        degradation(193, datetime(2021, 1, 1), path)
    assert caught.value.reason == "no_table"
    if text is None or b"193" not in text:
        with pytest.raises(FitsError) as caught:
            read_pointing(path)
        assert caught.value.reason == "no_table"


def test_intensity_is_divided_by_exposure_and_sensitivity(tmp_path: Path) -> None:
    header = aia_cards(64) | {"EXPTIME": 2.5}
    flat = Segment(np.full((64, 64), 800.0), header, True)
    corrected, plain = (calibrate_aia(flat, DiskSettings(resolution=32, degradation=on))
                        for on in (True, False))  # fmt: skip
    factor = degradation(193, datetime(2012, 6, 1, 0, 0, 5)).factor
    np.testing.assert_allclose(plain.data[plain.disk], 800 / 2.5, rtol=1e-6)
    np.testing.assert_allclose(corrected.data, plain.data / factor, rtol=1e-6)
    assert corrected.notes["degradation"] == pytest.approx(factor, rel=1e-6)
    assert (
        corrected.notes["correction_sha256"] == hashlib.sha256(EUV_TABLE.read_bytes()).hexdigest()
    )
    assert plain.notes["degradation"] is None
    assert corrected.header["BUNIT"] == "DN/s"
    done = Segment(flat.data, header | {"BUNIT": "DN/s"}, True)
    once = calibrate_aia(done, DiskSettings(resolution=32, degradation=False))
    np.testing.assert_allclose(once.data[once.disk], 800.0, rtol=1e-6)
    assert once.notes["exposure_divided"] is False
    own = DiskSettings(resolution=32, correction_table=UV_TABLE)
    assert calibrate_aia(flat, own).notes["correction_version"] == "8 of 2017-12-10"
    lost = DiskSettings(resolution=32, correction_table=tmp_path / "none.txt")
    with pytest.raises(FitsError, match=r"none\.txt"):
        calibrate_aia(flat, lost)


def test_times() -> None:
    assert utc("2011-03-19T10:54:01.34Z") == datetime(2011, 3, 19, 10, 54, 1, 340000)
    assert utc("2016-12-31T23:59:60.5") == datetime(2017, 1, 1, 0, 0, 0, 500000)
    for wrong in (None, "", "yesterday", "2011-13-01T00:00:00", "2011.02.15_02:00:00_TAI"):
        assert utc(wrong) is None


def test_pointing_is_that_of_aiapy(tmp_path: Path) -> None:
    pytest.importorskip("aiapy")
    import astropy.units as u
    import sunpy.map
    from aiapy.calibrate import update_pointing
    from astropy.table import QTable
    from astropy.time import Time

    path = tmp_path / "pointing.csv"
    path.write_text(POINTING.replace("MISSING", "nan").replace("0.600698,\n", "0.600698,0.05\n"))
    table = QTable.read(path)
    for column in ("T_START", "T_STOP"):
        table[column] = Time(list(table[column]), scale="utc")
    for name, unit in (("X0", u.pix), ("Y0", u.pix), ("IMSCALE", u.arcsec / u.pix),
                       ("INSTROT", u.deg)):  # fmt: skip
        table[f"A_193_{name}"].unit = unit
    saved = tmp_path / "pointing.ecsv"
    table.write(saved)
    header = aia_cards(4096, rotation=0.06)
    there = sunpy.map.Map(np.zeros((4096, 4096), np.int8), header)
    theirs = update_pointing(there, pointing_table=table).meta
    for file in (path, saved):
        ours, note = repoint(header, (4096, 4096), 193, read_pointing(file))
        assert note.startswith(file.name)
        for key in ("CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA2"):
            assert ours[key] == pytest.approx(float(theirs[key.lower()]), abs=1e-12)


def test_pointing_that_is_missing_stays_the_headers(tmp_path: Path) -> None:
    path = tmp_path / "pointing.csv"
    path.write_text(POINTING)
    header = aia_cards(4096, rotation=0.06) | {"T_OBS": "2012-06-01T04:00:00Z"}
    ours, note = repoint(header, (4096, 4096), 193, read_pointing(path))
    assert "without CRPIX1, CROTA2" in note
    assert (ours["CRPIX1"], ours["CROTA2"]) == (header["CRPIX1"], 0.06)
    assert ours["CRPIX2"] == 2047.25
    for change, channel, shape, reason in (
        ({"T_OBS": "2012-06-02T00:00:00Z"}, 193, (4096, 4096), "no_table"),
        ({}, 171, (4096, 4096), "no_table"), ({}, 193, (1024, 1024), "geometry"),
        ({"T_OBS": None}, 193, (4096, 4096), "no_keywords"),
    ):  # fmt: skip
        with pytest.raises(FitsError) as caught:
            repoint(header | change, shape, channel, read_pointing(path))
        assert caught.value.reason == reason


def test_a_pointing_table_moves_the_sun(tmp_path: Path) -> None:
    path = tmp_path / "pointing.csv"
    path.write_text(POINTING)
    x, y = (np.exp(-(((np.arange(4096) - at) / 300) ** 2)) for at in (2041.5, 2046.25))
    image = (1000 * np.outer(y, x)).astype(np.float32)
    wrong = Segment(image, aia_cards(4096, shift=(9.0, -7.0), scale=0.6), True)
    centres = {}
    for table in (path, None):
        settings = DiskSettings(resolution=128, degradation=False, pointing_table=table)
        found = calibrate_aia(wrong, settings)
        weights = found.data.astype(np.float64) / found.data.sum()
        rows, columns = np.indices(weights.shape)
        centres[table] = float((weights * columns).sum()), float((weights * rows).sum())
        assert found.notes["pointing"].startswith("pointing.csv " if table else "header")
    assert centres[path] == pytest.approx((63.5, 63.5), abs=2e-3)
    side = 960.0 / (0.6 * DiskSettings().rsun_share * 64)  # pixels of the camera
    away = (63.5 + (2041.5 - 2047.5 - 9) / side, 63.5 + (2046.25 - 2047.5 + 7) / side)
    assert centres[None] == pytest.approx(away, abs=2e-2)
