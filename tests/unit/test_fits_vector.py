"""Vector records: what is accepted, and the reason for everything that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire.sample import FOLDER
from preprocess.dataset.patch import number
from preprocess.dataset.patches import check_quality
from sunpipe.errors import DataError
from sunpipe.files import sha256, write_json
from sunpipe.fits import COMPONENTS, peek_shape, read_checked, read_segment, read_vector
from sunpipe.fitsfile import FitsError
from sunpipe.physics.geometry import card
from sunpipe.sidecar import read_sidecar, sidecar

STEM = "hmi.sharp_cea_720s.377.20110215_020000_TAI"
RECORD = "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]"
CARDS = ("TELESCOP", "INSTRUME", "BUNIT", "HARPNUM", "T_REC", "CTYPE1", "CTYPE2", "CRPIX1",
         "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1", "CDELT2", "RSUN_REF", "RSUN_OBS", "DSUN_OBS",
         "CRLN_OBS", "CRLT_OBS", "QUALITY", "T_OBS", "CROTA2")  # fmt: skip


def triple(harp: str = STEM, folder: Path = FOLDER) -> list[Path]:
    return [folder / f"{harp}.{component}.fits" for component in COMPONENTS]


@pytest.fixture
def made(tmp_path: Path):
    """Write three small components; cards may be changed or (None) left out."""
    real = read_segment(triple()[0]).header

    def make(data=None, only: str | None = None, shape=(8, 9), **cards) -> list[Path]:
        for component in COMPONENTS:
            values = np.ones(shape, np.float32) if data is None else data
            if isinstance(values, dict):
                values = values[component]
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
        ({"CTYPE1": "HPLN-CEA"}, "wrong_projection"),
        ({"CTYPE2": "HPLT-CEA"}, "wrong_projection"),
        ({"CTYPE1": "CRLT-CEA", "CTYPE2": "CRLN-CEA"}, "wrong_projection"),
        ({"CTYPE2": None}, "wrong_projection"),
        ({"T_REC": "2011.02.31_02:00:00_TAI"}, "no_keywords"),
        ({"CDELT1": 0.0}, "geometry"),
        ({"CDELT1": -0.03}, "geometry"),
        ({"CDELT2": 0.06}, "geometry"),
        ({"CDELT1": -0.03, "CDELT2": -0.03}, "geometry"),
        ({"CDELT1": 30.0, "CDELT2": 30.0}, "geometry"),
        ({"CUNIT1": "arcsec"}, "geometry"),
        ({"CUNIT2": "arcsec", "CUNIT1": "arcsec"}, "geometry"),
        ({"CROTA2": 180.0}, "geometry"),
        ({"PC1_1": 0.0, "PC1_2": 1.0, "PC2_1": 1.0, "PC2_2": 0.0}, "geometry"),
        ({"CD1_2": 0.03}, "geometry"),
        ({"PV2_1": 0.5}, "geometry"),
        ({"CRVAL2": 95.0}, "geometry"),
        ({"CRLT_OBS": 40.0}, "geometry"),
        ({"CRVAL1": 34.9 + 180}, "geometry"),
        ({"CRVAL1": 21.7 + 96.0}, "geometry"),
        ({"RSUN_OBS": 97.0}, "geometry"),
        ({"RSUN_OBS": 950.0}, "geometry"),
        ({"DSUN_OBS": 1.6e11}, "geometry"),
        ({"DSUN_OBS": 0.03}, "geometry"),
        ({"DSUN_OBS": 1.0e11, "RSUN_OBS": 1435.0}, "geometry"),
        ({"DSUN_OBS": None}, "geometry"),
    ],
)
def test_unusable_headers(made, cards: dict[str, object], expected: str) -> None:
    assert reason(made(**cards)) == expected


@pytest.mark.parametrize("cards", [
    {"CRPIX1": 100.0}, {"CRVAL1": 40.0}, {"CRVAL2": -20.0}, {"CDELT1": 0.06, "CDELT2": 0.06},
    {"T_OBS": "2011.02.15_02:12:00_TAI"}, {"QUALITY": 1024}, {"CTYPE1": "HPLN-TAN"},
    {"CROTA2": 180.0}, {"DSUN_OBS": 1.48e11},
])  # fmt: skip
@pytest.mark.parametrize("which", ["Bt", "Bp"])
def test_components_that_contradict_each_other_are_refused(made, which: str, cards) -> None:
    assert reason(made(only=which, **cards)) == "different_records"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_component_that_is_a_copy_of_another_is_refused(made, component: str) -> None:
    noise = np.random.default_rng(3).normal(0, 100, (3, 8, 9)).astype(np.float32)
    fields = dict(zip(COMPONENTS, noise, strict=True))
    assert read_vector(*made(fields)).fields.shape == (3, 8, 9)
    other = COMPONENTS[(COMPONENTS.index(component) + 1) % 3]
    assert reason(made(fields | {component: fields[other]})) == "wrong_segment"


def test_what_real_sharps_have_is_accepted(made) -> None:
    """Patches at the limb: the centre may be behind it, the near edge may not."""
    wide = (64, 1200)  # 36 degrees
    assert read_vector(*made(shape=wide, CRVAL1=21.725103 + 105)).fields.shape == (3, *wide)
    assert reason(made(shape=wide, CRVAL1=21.725103 + 118)) == "geometry"
    for cards in ({"CUNIT1": "degree", "CUNIT2": "deg"}, {"CRVAL1": 34.9 + 360}, {"CROTA2": 0},
                  {"CRLN_OBS": None}, {"PC1_1": 1.0, "PC1_2": 0.0}):  # fmt: skip
        read_vector(*made(**cards))


def test_a_file_that_is_not_the_expected_one_is_refused(made) -> None:
    paths = made()
    digests = [sha256(path) for path in paths]
    assert read_vector(*paths, sha256=digests).record == RECORD
    assert reason(paths, sha256=[*digests[:2], "0" * 64]) == "changed"
    assert read_checked(paths[0], digests[0]) == paths[0].read_bytes()
    with pytest.raises(FitsError, match="fetch --check"):
        read_checked(paths[1], "0" * 64)
    paths[2].write_bytes(paths[2].read_bytes()[:-100])  # what is wrong is told, where it is known
    assert reason(paths, sha256=digests) == "truncated"


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
    record = "hmi.sharp_cea_720s[12][2012.01.01_00:00:00_TAI]"
    write_json(tmp_path / "keywords.json", sidecar(record, keywords, units))
    assert read_vector(*paths).harpnum == 12
    assert reason(paths, keywords={}) == "unknown_unit"
    write_json(tmp_path / "keywords.json", sidecar(record, keywords, {**units, "Bp": "degree"}))
    assert reason(paths) == "unknown_unit"
    (tmp_path / "keywords.json").write_text("[]")
    with pytest.raises(DataError, match=r"keywords\.json"):
        read_vector(*paths)
    write_json(tmp_path / "keywords.json", sidecar(record, keywords, units))
    assert reason(made(BUNIT=None)) == "different_records"  # the files say HARP 377


@pytest.mark.parametrize(("change", "message"), [
    ({"units": {"Br": ["G"]}}, "the unit of Br"), ({"units": [1]}, "lacks its keywords"),
    ({"keywords": {"HARPNUM": {}}}, "HARPNUM is a dict"), ({"schema": 2}, "version"),
    ({"record": None}, "does not say"), ({"record": RECORD.replace("377", "378")}, "not of"),
    ({"keywords": {"HARPNUM": 378}}, "says HARPNUM = 378"),
    ({"keywords": {"T_REC": "2011.02.15_02:12:00_TAI"}}, "says T_REC"),
])  # fmt: skip
def test_keywords_of_another_kind_or_record_are_one_line(tmp_path: Path, change, message) -> None:
    path = tmp_path / "keywords.json"
    content = sidecar(RECORD, {"HARPNUM": 377, "QUALITY": 0, "NOAA": None}, {"Br": "G"})
    write_json(path, content)
    assert read_sidecar(path, ["Br"], RECORD)["BUNIT"] == "G"
    write_json(path, content | change)
    with pytest.raises(DataError, match=message):
        read_sidecar(path, ["Br"], RECORD)


@pytest.mark.parametrize("digits", [400, 5000])
def test_an_integer_that_no_float_holds_is_no_number(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "keywords.json"
    huge = "9" * digits
    path.write_text(
        f'{{"schema": 1, "record": "r", "units": {{}}, "keywords": {{"QUALITY": {huge}}}}}'
    )
    if digits > 4300:  # Python reads no longer ones
        with pytest.raises(DataError):
            read_sidecar(path, [])
        return
    header = read_sidecar(path, [])
    assert number(header, "QUALITY") is None
    with pytest.raises(FitsError) as caught:
        check_quality(header, "lenient", required=False)
    assert caught.value.reason == "quality"
    with pytest.raises(DataError, match="DSUN_OBS"):
        card({"DSUN_OBS": int(huge)}, "DSUN_OBS")


def test_a_peek_reads_headers_alone(made, tmp_path: Path) -> None:
    assert [peek_shape(path) for path in (made()[0], triple()[0])] == [(8, 9), (377, 744)]
    path = tmp_path / "huge.fits"
    path.write_bytes(triple()[0].read_bytes())
    with open(path, "r+b") as handle:
        handle.truncate(6 << 30)  # a hole of 6 GB
    for content, expected in ((None, "too_large"), (b"", "not_fits"), (b"x" * 10**6, "not_fits"),
                              (b"SIMPLE  =" + b" " * 10**7, "truncated")):  # fmt: skip
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FitsError) as caught:
            peek_shape(path)
        assert caught.value.reason == expected


def test_a_peek_says_what_reading_says(tmp_path: Path) -> None:
    raw = triple()[0].read_bytes()
    path = tmp_path / "x.fits"
    for damaged in (raw[:5000], raw[:-2880], raw + b"\0" * 2880, raw[:2880] + raw[5760:], raw[80:]):
        path.write_bytes(damaged)
        found = []
        for look in (peek_shape, read_segment):
            with pytest.raises(FitsError) as caught:
                look(path)
            found.append((caught.value.reason, caught.value.detail))
        assert found[0] == found[1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.Br\.fits"):
        read_vector(*triple("x", tmp_path))
