"""FITS bytes: decoding against astropy, defensive cards, damage of every kind."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire.sample import FOLDER, sample_files
from sunpipe.fits import parse_segment, read_segment
from sunpipe.fitsfile import BLOCK, FitsError, card_value, ones_sum

SMALL = FOLDER / "hmi.sharp_cea_720s.6060.20151030_000000_TAI.Br.fits"


def refused(raw: bytes) -> str:
    with pytest.raises(FitsError) as caught:
        parse_segment(raw, "x.fits")
    return caught.value.reason


def plain(data: np.ndarray, **cards: object) -> bytes:
    """A FITS file with one uncompressed image, written by astropy with checksums."""
    import io

    hdu = fits.PrimaryHDU(data)
    for key, value in cards.items():
        hdu.header[key] = value
    out = io.BytesIO()
    hdu.writeto(out, checksum=True)
    return out.getvalue()


@pytest.mark.parametrize("path", [path for _, _, path, _ in sample_files()], ids=lambda p: p.name)
def test_pixels_equal_those_of_astropy(path: Path) -> None:
    segment = read_segment(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            expected = hdus[-1].data.astype(np.float64)
    assert segment.verified
    assert np.array_equal(segment.data, expected, equal_nan=True)


def test_header_statistics_agree_with_the_pixels() -> None:
    segment = read_segment(SMALL)
    assert segment.data.min() == pytest.approx(segment.header["DATAMIN"], abs=1e-5)
    assert segment.data.max() == pytest.approx(segment.header["DATAMAX"], abs=1e-5)
    assert segment.data.mean() == pytest.approx(segment.header["DATAMEAN"], abs=1e-3)


def test_bare_nan_cards_are_numbers() -> None:
    header = read_segment(FOLDER / "hmi.sharp_cea_720s.377.20110215_020000_TAI.Br.fits").header
    assert math.isnan(header["R_VALUE"])
    assert header["USFLUX"] == 2.71476e22
    assert header["NOAA_ARS"] == "11158"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("                   T / flag", True),
        ("-2147483648", -(2**31)),
        ("0.", 0.0),
        ("1.5D3", 1500.0),
        ("'it''s  '           / quoted", "it's"),
        ("'a / b'", "a / b"),
        ("", None),
        ("(1.0, 2.0)", None),
        ("0x12", None),
    ],
)
def test_card_values(text: str, value: object) -> None:
    assert card_value(text) == value


def test_blank_is_nan_and_scale_is_applied() -> None:
    stored = np.array([[1, -32768], [3, 4]], np.int16)
    raw = plain(stored, BLANK=-32768)
    data = parse_segment(raw, "x").data
    assert np.array_equal(data, [[1, np.nan], [3, 4]], equal_nan=True)


def test_infinities_become_nan() -> None:
    data = parse_segment(plain(np.array([[np.inf, 1.0]], np.float32)), "x").data
    assert np.array_equal(data, [[np.nan, 1.0]], equal_nan=True)


def test_last_image_wins_over_an_empty_primary() -> None:
    assert read_segment(SMALL).data.shape == (200, 335)


def test_ones_sum_carries_around() -> None:
    assert ones_sum(b"\xff\xff\xff\xff\x00\x00\x00\x02") == 2


def test_ones_sum_of_much_data() -> None:
    """The compiled sum, also of bytes that do not lie on a word, against numpy's."""
    raw = np.random.default_rng(0).bytes(3_000_001)
    for start in (0, 1):
        total = sum(int(word) for word in np.frombuffer(raw, ">u4", 750_000, start))
        expected = total % 0xFFFFFFFF  # ones' complement addition is addition modulo 2**32 - 1
        assert ones_sum(memoryview(raw)[start : start + 3_000_000]) == expected
    assert ones_sum(b"\xff" * (2 << 20)) == 0xFFFFFFFF


def test_not_fits() -> None:
    assert refused(b"") == "not_fits"
    assert refused(b"<html>JSOC is down</html>" * 200) == "not_fits"


def test_no_image() -> None:
    assert refused(plain(np.zeros((0, 0), np.int16))) == "no_image"
    assert refused(plain(np.zeros((2, 3, 4), np.int16))) == "no_image"


def test_truncated_anywhere() -> None:
    raw = SMALL.read_bytes()
    for size in (1, 79, BLOCK - 1, BLOCK, 3 * BLOCK, len(raw) // 2, len(raw) - BLOCK, len(raw) - 1):
        assert refused(raw[:size]) in ("truncated", "no_image", "not_fits", "corrupt"), size


def test_flipped_data_bit_is_seen() -> None:
    raw = bytearray(SMALL.read_bytes())
    raw[len(raw) // 2] ^= 1
    assert refused(bytes(raw)) == "checksum"


def test_flipped_header_bit_is_seen() -> None:
    raw = SMALL.read_bytes()
    place = raw.index(b"BSCALE  =") + 25
    changed = raw[:place] + raw[place:].replace(b"0.01", b"0.03", 1)
    assert refused(changed) == "checksum"


def test_half_a_checksum_is_refused() -> None:
    raw = SMALL.read_bytes()
    assert refused(raw.replace(b"CHECKSUM=", b"CHECKSUX=", 1)) == "checksum"


def _resized(raw: bytes, key: bytes, value: int) -> bytes:
    place = raw.index(key.ljust(8) + b"= ")
    card = key.ljust(8) + b"= " + str(value).rjust(20).encode()
    return raw[:place] + card + raw[place + len(card) :]


def test_dimension_bombs_are_refused_from_the_header() -> None:
    raw = SMALL.read_bytes()
    bomb = _resized(_resized(raw, b"ZNAXIS1", 10**6), b"ZNAXIS2", 10**6)
    for key in (b"CHECKSUM", b"DATASUM "):
        bomb = bomb.replace(key + b"=", b"COMMENT  ", 1)
    assert refused(bomb) == "too_large"
    assert refused(_resized(plain(np.zeros((4, 4))), b"NAXIS1", 10**9)) == "truncated"


def test_strange_compression_is_refused_not_decoded() -> None:
    import io

    hdu = fits.CompImageHDU(np.zeros((64, 64), np.int32), compression_type="GZIP_1")
    out = io.BytesIO()
    hdu.writeto(out, checksum=True)
    assert refused(out.getvalue()) == "unsupported"


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.fits")
    for path in (tmp_path / "pipe.fits", Path("/dev/zero")):
        with pytest.raises(FitsError, match="no plain file") as caught:
            read_segment(path)
        assert caught.value.reason == "not_fits"
