"""Every real FITS file at hand: read as its header states, or refused for the right reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from preprocess.acquire.sample import FOLDER
from sunpipe.fits import read_segment
from sunpipe.fitsfile import FitsError
from sunpipe.fitsorigin import check_instrument
from sunpipe.fitsreduced import read_reduced
from sunpipe.fitsstats import check_statistics, states_its_pixels
from tests.conftest import REPO

DATA = REPO.parent / "shared" / "data"  # real files that are too many for the repository
FILES = sorted(FOLDER.glob("*.fits")) + sorted(DATA.rglob("*.fits"))
OTHERS = sorted(DATA.glob("fulldisk_jp2/*.jp2")) + sorted(DATA.glob("aia193_png/*.png"))

# (shape, TELESCOP, share of NaN) where the archive's own statistics do not describe the pixels
STATED_ELSEWHERE = {
    "AIA20110319_105400_0171.fits": ((1024, 1024), "SDO/AIA", 0.0, -2.0, 9429.0),
    "AIA20180820_1248_0193.fits": ((1024, 1024), "SDO/AIA", 0.0, -2.125, 4971.0),
    "aia_171_cutout.fits": ((705, 769), "SDO/AIA", 0.0, 35.0, 8024.0),
    "hmi.M_720s_nrt.20180820_090000_TAI.fits": ((1024, 1024), "SDO/HMI", 0.337, -870.6, 899.6),
    "resampled_hmi.fits": ((100, 100), "SDO/HMI", 0.243, 209.8, 6.735e4),
    "sdo-hmi_2011-02-14_20-34-12.fits": ((496, 495), "SDO/HMI", 0.0, -2133.0, 2016.0),
    "hmi.M_720s.20110402_204800_TAI_0.fits": ((256, 256), None, 0.0, -1689.0, 914.3),
    "hmi.M_720s.20110403_044800_TAI_0.fits": ((256, 256), None, 0.0, -1549.0, 860.3),
    "mdi_20110402_204800_TAI_0.fits": ((256, 256), None, 0.0, -1989.0, 643.6),
    "mdi_20110403_044800_TAI_0.fits": ((256, 256), None, 0.0, -1888.0, 536.7),
    "hmi.sharp_cea_720s.833.20110904_130000_TAI.continuum.fits":
        ((507, 976), None, 0.0, 1.433e4, 6.911e4),
    "hmi.sharp_cea_720s.7115.20170901_220000_TAI.continuum.fits":
        ((448, 688), None, 0.0, 9728.0, 5.591e4),
    "mdi.smarp_cea_96m.13520.20100714_124800_TAI.bitmap.fits":
        ((141, 242), "SOHO", 0.0, 0.0, 50.0),
    "mdi.smarp_cea_96m.13520.20100714_124800_TAI.magnetogram.fits":
        ((141, 242), "SOHO", 0.0, -2043.0, 1013.0),
}  # fmt: skip
VERDICT = {"SDO/HMI": None, "SDO/AIA": "wrong_instrument", "SOHO": "wrong_instrument",
           None: "no_keywords"}  # fmt: skip


def verdict(header: dict, name: str) -> str | None:
    try:
        check_instrument(header, name)
    except FitsError as error:
        return error.reason
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_real_file(path: Path) -> None:
    """Pixels of astropy to the bit, statistics of the header, the right instrument."""
    segment = read_segment(path)
    data = segment.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path) as hdus:
            last = [hdu.data for hdu in list(hdus)][-1]
    expected = np.where(np.isfinite(last), last, np.nan)
    if last.dtype.kind in "iu" or last.dtype.itemsize == 8:
        assert np.array_equal(data, expected, equal_nan=True)
    else:  # astropy scales in float32
        assert np.array_equal(np.isnan(data), np.isnan(expected))
        np.testing.assert_allclose(data, expected, rtol=3e-7, atol=1e-6)
    if path.name in STATED_ELSEWHERE:
        shape, telescope, missing, least, most = STATED_ELSEWHERE[path.name]
        assert not states_its_pixels(segment.header, data.shape)
        assert data.shape == shape
        assert np.isnan(data).mean() == pytest.approx(missing, abs=6e-4)
        assert np.nanmin(data) == pytest.approx(least, rel=5e-4)
        assert np.nanmax(data) == pytest.approx(most, rel=5e-4)
        assert segment.header.get("TELESCOP") == telescope
        assert verdict(segment.header, path.name) == VERDICT[telescope]
    else:
        assert states_its_pixels(segment.header, data.shape)
        check_statistics(segment.header, data, path.name)
        assert segment.header["MISSVALS"] == np.isnan(data).sum()
        assert segment.verified
        assert verdict(segment.header, path.name) is None
    whole = read_reduced(path, 1)
    assert np.array_equal(whole.data, data.astype(np.float32), equal_nan=True)
    assert whole.header.keys() == segment.header.keys()
    assert whole.verified == segment.verified


def test_previews_are_not_fits(tmp_path: Path) -> None:
    """JPEG2000 and PNG renderings: their first bytes, and whole files where they are at hand."""
    signatures = {"x.jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "x.png": b"\x89PNG\r\n\x1a\n"}
    for name, first in signatures.items():
        (tmp_path / name).write_bytes(first.ljust(5760, b"\0"))
    for path in [*tmp_path.iterdir(), *OTHERS]:
        with pytest.raises(FitsError) as caught:
            read_segment(path)
        assert caught.value.reason == "not_fits", path.name
