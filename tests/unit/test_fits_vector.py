"""Vector records: what is accepted, and the reason for everything that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire.sample import FOLDER
from sunpipe.errors import DataError
from sunpipe.files import write_json
from sunpipe.fits import COMPONENTS, read_segment, read_vector
from sunpipe.fitsfile import FitsError
from sunpipe.sidecar import sidecar

STEM = "hmi.sharp_cea_720s.377.20110215_020000_TAI"
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
CARDS = ("TELESCOP", "INSTRUME", "BUNIT", "HARPNUM", "T_REC", "CTYPE1", "CTYPE2", "CRPIX1",
         "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "RSUN_REF", "RSUN_OBS", "DSUN_OBS",
         "CRLN_OBS", "CRLT_OBS", "QUALITY")  # fmt: skip


def triple(harp: str = STEM, folder: Path = FOLDER) -> list[Path]:
    return [folder / f"{harp}.{component}.fits" for component in COMPONENTS]


@pytest.fixture
def made(tmp_path: Path):
    """Write three small components; cards may be changed or (None) left out."""
    real = read_segment(triple()[0]).header

    def make(data=None, only: str | None = None, shape=(8, 9), **cards) -> list[Path]:
        for component in COMPONENTS:
            values = np.ones(shape, np.float32) if data is None else data
            hdu = fits.PrimaryHDU(values)
            for key in CARDS:
                hdu.header[key] = real[key]
            for key, value in cards.items():
                if only in (None, component):
                    if value is None:
                        del hdu.header[key]
                    else:
                        hdu.header[key] = value
            hdu.writeto(tmp_path / f"x.{component}.fits", checksum=True, overwrite=True)
        return triple("x", tmp_path)

    return make


def reason(paths: list[Path], **kwargs: object) -> str:
    with pytest.raises(FitsError) as caught:
        read_vector(*paths, **kwargs)
    assert str(caught.value).count("\n") == 0
    return caught.value.reason


def test_a_real_record() -> None:
    found = read_vector(*triple())
    assert found.record == RECORD
    assert (found.harpnum, found.t_rec) == (377, "2011.02.15_02:00:00_TAI")
    assert found.fields.shape == (3, 377, 744)
    assert found.pixel_cm == pytest.approx(3.64423e7, rel=1e-5)
    assert found.fields[0].max() == pytest.approx(2636.54, abs=1e-6)


def test_usflux_of_the_masked_record_equals_its_header() -> None:
    found = read_vector(*triple())
    bitmap = read_segment(FOLDER / f"{STEM}.bitmap.fits").data
    confidence = read_segment(FOLDER / f"{STEM}.conf_disambig.fits").data
    mask = (bitmap >= 30) & (confidence >= 70)
    flux = np.abs(found.fields[0][mask]).sum() * found.pixel_cm**2
    assert mask.sum() == found.header["CMASK"]
    assert flux == pytest.approx(found.header["USFLUX"], rel=1e-6)


def test_the_fixture_is_accepted(made) -> None:
    assert read_vector(*made()).record == RECORD


def test_swapped_components_are_refused() -> None:
    br, bt, bp = triple()
    assert reason([bt, br, bp]) == "wrong_segment"
    assert reason([FOLDER / f"{STEM}.magnetogram.fits", bt, bp]) == "wrong_segment"


def test_components_of_different_records_are_refused() -> None:
    other = triple("hmi.sharp_cea_720s.6060.20151030_000000_TAI")
    assert reason([triple()[0], *other[1:]]) == "different_records"


def test_components_of_different_shapes_are_refused(made, tmp_path: Path) -> None:
    br = made()[0].read_bytes()
    paths = made(shape=(8, 10))
    paths[0].write_bytes(br)
    assert reason(paths) == "different_shapes"


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"TELESCOP": "SOHO", "INSTRUME": "MDI"}, "wrong_instrument"),
        ({"TELESCOP": "SDO/AIA", "INSTRUME": "AIA_4"}, "wrong_instrument"),
        ({"TELESCOP": None}, "no_keywords"),
        ({"BUNIT": "DN/s"}, "unknown_unit"),
        ({"BUNIT": "T"}, "unknown_unit"),
        ({"BUNIT": None}, "unknown_unit"),
        ({"HARPNUM": 0}, "no_keywords"),
        ({"HARPNUM": "377/../.."}, "no_keywords"),
        ({"T_REC": "2011-02-15T02:00:00"}, "no_keywords"),
        ({"CTYPE1": "HPLN-TAN"}, "wrong_projection"),
        ({"CDELT1": 0.0}, "geometry"),
        ({"DSUN_OBS": None}, "geometry"),
    ],
)
def test_unusable_headers(made, cards: dict[str, object], expected: str) -> None:
    assert reason(made(**cards)) == expected


def test_one_component_of_another_unit_is_refused(made) -> None:
    assert reason(made(only="Bp", BUNIT="degree")) == "unknown_unit"


def test_all_nan_is_refused(made) -> None:
    assert reason(made(np.full((8, 9), np.nan, np.float32))) == "all_nan"


def test_keywords_fill_what_a_header_lacks_and_no_more(made) -> None:
    paths = made(HARPNUM=None, T_REC=None)
    keywords = {"HARPNUM": 12, "T_REC": "2012.01.01_00:00:00_TAI", "BUNIT": "K", "NOAA_AR": None}
    found = read_vector(*paths, keywords=keywords)
    assert found.record == "hmi.sharp_cea_720s[12][2012.01.01_00:00:00_TAI]"
    assert found.header["BUNIT"] == "Mx/cm^2"


def test_keywords_beside_the_files_are_found(made, tmp_path: Path) -> None:
    paths = made(HARPNUM=None, T_REC=None, BUNIT=None)
    assert reason(paths) == "unknown_unit"
    keywords = {"HARPNUM": 12, "T_REC": "2012.01.01_00:00:00_TAI"}
    units = {"Br": "Gauss", "Bt": "Gauss", "Bp": "Gauss"}
    write_json(tmp_path / "keywords.json", sidecar("", keywords, units))
    assert read_vector(*paths).harpnum == 12
    assert reason(paths, keywords={}) == "unknown_unit"
    write_json(tmp_path / "keywords.json", sidecar("", keywords, {**units, "Bp": "degree"}))
    assert reason(paths) == "unknown_unit"
    (tmp_path / "keywords.json").write_text("[]")
    with pytest.raises(DataError, match=r"keywords\.json"):
        read_vector(*paths)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.Br\.fits"):
        read_vector(*triple("x", tmp_path))
