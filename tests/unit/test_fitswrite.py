"""FITS written by sunpipe, read by sunpipe, astropy and sunpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from preprocess.acquire.sample import FOLDER
from sunpipe.errors import DataError
from sunpipe.fits import read_segment
from sunpipe.fitscards import encode_sum
from sunpipe.fitsfile import FitsError
from sunpipe.fitsmark import Synthetic
from sunpipe.fitswrite import image_bytes, write_image

SHARP = FOLDER / "hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits"
MODEL = Synthetic("SYNTHETIC", "STYLEGAN2", "ab" * 32, ("seed 3",))
CEA = {
    "CTYPE1": "CRLN-CEA", "CTYPE2": "CRLT-CEA", "CRPIX1": 31.0, "CRPIX2": 20.5, "CRVAL1": 34.9,
    "CRVAL2": -21.1, "CDELT1": 0.03, "CDELT2": 0.03, "CUNIT1": "deg", "CUNIT2": "deg",
    "CRLN_OBS": 21.7, "CRLT_OBS": -6.8, "DSUN_OBS": 1.4775e11, "RSUN_REF": 6.96e8,
    "DATE-OBS": "2011-02-15T01:59:26",
}  # fmt: skip
DISK = {
    "CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CRPIX1": 32.5, "CRPIX2": 32.5, "CRVAL1": 0.0,
    "CRVAL2": 0.0, "CDELT1": 38.4, "CDELT2": 38.4, "CUNIT1": "arcsec", "CUNIT2": "arcsec",
    "HGLN_OBS": 0.0, "HGLT_OBS": -6.8, "DSUN_OBS": 1.4775e11, "RSUN_REF": 6.96e8,
    "DATE-OBS": "2011-02-15T01:59:26",
}  # fmt: skip


def field(dtype: type = np.float64, shape: tuple[int, int] = (40, 61)) -> np.ndarray:
    data = np.random.default_rng(1).normal(0.0, 300.0, shape)
    data[3, 4] = np.nan
    return data.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_come_back_bit_for_bit(tmp_path: Path, dtype: type) -> None:
    data = field(dtype)
    write_image(tmp_path / "x.fits", data, CEA, "G", compress=None)
    segment = read_segment(tmp_path / "x.fits")
    assert segment.verified
    assert np.array_equal(segment.data, data.astype(np.float64), equal_nan=True)


@pytest.mark.parametrize(("bits", "step"), [(16, 0.1), (32, 0.01)])
@pytest.mark.parametrize("compress", [None, "RICE_1"])
def test_scaled_integers_err_by_half_a_step(
    tmp_path: Path, bits: int, step: float, compress: str | None
) -> None:
    data = field()
    write_image(tmp_path / "x.fits", data, CEA, "G", compress=compress, bscale=step, bits=bits)
    segment = read_segment(tmp_path / "x.fits")
    assert segment.verified
    assert np.nanmax(np.abs(segment.data - data)) <= step / 2 * (1 + 1e-9)
    assert np.array_equal(np.isnan(segment.data), np.isnan(data))
    assert segment.header["DATAVALS"] == data.size - 1
    assert segment.header["DATAMAX"] == pytest.approx(np.nanmax(segment.data), abs=1e-9)
    assert segment.header["DATARMS"] == pytest.approx(np.nanstd(segment.data, ddof=1), rel=1e-9)
    with fits.open(tmp_path / "x.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert np.allclose(hdus[-1].data, segment.data, rtol=1e-6, atol=0, equal_nan=True)


def test_astropy_and_sunpy_agree_on_a_patch(tmp_path: Path) -> None:
    sunpy_map = pytest.importorskip("sunpy.map")
    write_image(tmp_path / "x.fits", field(), CEA, "G", bscale=0.01, synthetic=MODEL)
    with fits.open(tmp_path / "x.fits") as hdus:
        world = WCS(hdus[1].header).wcs_pix2world([[31, 20.5], [41, 20.5]], 1)
    assert world[0] == pytest.approx([34.9, -21.1])
    # ten pixels of 0.03 degree along the great circle that starts westward
    assert (world[1][0] - world[0][0]) * np.cos(np.radians(21.1)) == pytest.approx(0.3, abs=1e-3)
    found = sunpy_map.Map(tmp_path / "x.fits")
    assert tuple(found.coordinate_system) == ("CRLN-CEA", "CRLT-CEA")
    assert str(found.unit) == "G"
    assert found.scale[0].value == pytest.approx(0.03)
    assert found.reference_coordinate.lon.deg == pytest.approx(34.9)
    assert found.reference_coordinate.lat.deg == pytest.approx(-21.1)
    assert found.observatory == "SYNTHETIC"
    assert found.observer_coordinate.lat.deg == pytest.approx(-6.8)


def test_astropy_and_sunpy_agree_on_a_full_disk(tmp_path: Path) -> None:
    sunpy_map = pytest.importorskip("sunpy.map")
    write_image(tmp_path / "x.fits", field(np.float32, (64, 64)), DISK, "ct/s", compress=None)
    with fits.open(tmp_path / "x.fits") as hdus:
        world = WCS(hdus[0].header).wcs_pix2world([[32.5, 32.5], [33.5, 32.5]], 1) * 3600
    assert (world[0] + 648000) % 1296000 - 648000 == pytest.approx([0.0, 0.0], abs=1e-6)
    assert (world[1][0] - world[0][0]) % 1296000 == pytest.approx(38.4, abs=1e-3)
    found = sunpy_map.Map(tmp_path / "x.fits")
    assert tuple(found.coordinate_system) == ("HPLN-TAN", "HPLT-TAN")
    assert found.scale[0].value == pytest.approx(38.4)


def test_a_synthetic_image_cannot_be_taken_for_the_record_it_was_made_from(tmp_path: Path) -> None:
    source = read_segment(SHARP).header
    write_image(tmp_path / "x.fits", field(), source, "G", bscale=0.01, synthetic=MODEL)
    header = read_segment(tmp_path / "x.fits").header
    assert header["TELESCOP"] == "SYNTHETIC"
    assert header["ORIGIN"] == "sunpipe"
    assert header["SYNTHET"] is True
    assert header["SRCREC"] == "2011.02.15_02:00:00_TAI"
    assert header["SRCHARP"] == 377
    assert header["SRCTEL"] == "SDO/HMI"
    assert header["CRVAL1"] == source["CRVAL1"]
    assert not {"T_REC", "HARPNUM", "USFLUX", "QUALITY", "RECNUM", "CODEVER7"} & header.keys()
    assert header["DATAMAX"] != source["DATAMAX"]
    with fits.open(tmp_path / "x.fits") as hdus:
        history = list(hdus[1].header["HISTORY"])
    assert history[0].startswith("Not an observation")
    assert history[1] == f"SHA-256 {'ab' * 32}"
    assert history[-1] == "seed 3"


def test_a_generator_cannot_call_itself_an_instrument_of_sdo() -> None:
    with pytest.raises(ValueError, match="SIMULATED or SYNTHETIC"):
        Synthetic("SDO/HMI", "X", "ab")
    with pytest.raises(ValueError, match="instrument of SDO"):
        Synthetic("SYNTHETIC", "HMI_SIDE1", "ab")


def test_bytes_depend_on_the_arguments_alone() -> None:
    one = image_bytes(field(), CEA, "G", bscale=0.01, synthetic=MODEL)
    assert one == image_bytes(field(), dict(CEA), "G", bscale=0.01, synthetic=MODEL)
    assert b"DATE    =" not in one


def test_long_text_is_continued(tmp_path: Path) -> None:
    text = "it's long: " + "x" * 150
    cards = CEA | {"LONGSTR": text, "HISTORY": ["a" * 100, "b"]}
    write_image(tmp_path / "x.fits", field(), cards, "G", compress=None)
    with fits.open(tmp_path / "x.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus[0].header["LONGSTR"] == text
        assert list(hdus[0].header["HISTORY"]) == ["a" * 72, "a" * 28, "b"]


@pytest.mark.parametrize(
    "cards",
    [{"A": float("nan")}, {"A": "tab\there"}, {"A": "\u00c5"}, {"A": None}, {"a": 1},
     {"TOOLONGKEY": 1}, {"A B": 1}],
)  # fmt: skip
def test_cards_that_fits_cannot_hold_are_refused(cards: dict[str, object]) -> None:
    with pytest.raises(DataError):
        image_bytes(field(), cards, "G", compress=None)


@pytest.mark.parametrize("value", [1e9, -1e9, np.inf, -327.68])
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, value: float) -> None:
    data = np.full((9, 9), value)
    with pytest.raises(DataError, match="does not fit"):
        write_image(tmp_path / "x.fits", data, CEA, "G", bscale=0.01, bits=16)
    assert list(tmp_path.iterdir()) == []


def test_structure_given_as_cards_is_not_used() -> None:
    cards = CEA | {"NAXIS1": 7, "BSCALE": 9.0, "DATASUM": "1", "ZIMAGE": False, "DATAMAX": 1e9}
    assert image_bytes(field(), cards, "G", bscale=0.1) == image_bytes(
        field(), CEA, "G", bscale=0.1
    )


@pytest.mark.parametrize(
    "how",
    [{"compress": "GZIP_1"}, {"compress": "RICE_1"}, {"bscale": 0.0}, {"bscale": 1.0, "bits": 8}],
)
def test_arguments_that_do_not_go_together(how: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        image_bytes(field(), CEA, "G", **how)


def test_every_flipped_byte_is_seen() -> None:
    from sunpipe.fits import parse_segment

    raw = image_bytes(field(shape=(20, 30)), CEA, "G", bscale=0.01, synthetic=MODEL)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(raw), 200):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(FitsError):
            parse_segment(bytes(damaged), "x.fits")


def test_the_checksum_of_the_standards_example() -> None:
    assert encode_sum(~868229149 & 0xFFFFFFFF) == "hcHjjc9ghcEghc9g"  # FITS 4.0, appendix J.2


@pytest.mark.parametrize("text", ["'" * 200, "it's " * 40, "x" * 68, "x" * 69, "a" * 66 + "''b"])
def test_text_of_any_length_comes_back(text: str) -> None:
    raw = image_bytes(field(), {"TEXT": text}, "G", compress=None)
    assert fits.Header.fromstring(raw[:28800])["TEXT"] == text.rstrip()
