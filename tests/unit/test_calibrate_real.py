"""Full-disk files of the archive: what is used, what is refused, and what comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocess.calibrate import DiskImage, DiskSettings, calibrate_aia, calibrate_hmi, judge
from preprocess.calibration.disk import geometry
from sunpipe.fits import Segment, read_segment
from sunpipe.fitsfile import FitsError
from tests.conftest import REPO

SHARED = REPO.parent / "shared" / "data"
AIA_2011 = "aia_fulldisk/AIA20110319_105400_0171.fits"
AIA_2018 = "aia_fulldisk/AIA20180820_1248_0193.fits"
CUTOUT = "aia_cutouts/aia_171_cutout.fits"
HMI_NRT = "hmi_fulldisk/hmi.M_720s_nrt.20180820_090000_TAI.fits"
CONTINUUM = "hmi_fulldisk/resampled_hmi.fits"
MDI = ("smarps_mdi/tarp13520_20100714_124800_TAI/"
       "mdi.smarp_cea_96m.13520.20100714_124800_TAI.magnetogram.fits")  # fmt: skip

pytestmark = pytest.mark.real_files


def real(name: str) -> Segment:
    return read_segment(SHARED / name)


def mean_within(data: Any, x: float, y: float, radius: float) -> float:
    """Mean over the disk, faded out around the limb so that no edge pixel decides."""
    rows, columns = np.indices(data.shape)
    weight = np.clip((1.1 - np.hypot(columns - x, rows - y) / radius) / 0.2, 0, 1)
    return float((np.nan_to_num(data) * weight).sum() / weight.sum())


def mean_of(image: DiskImage) -> float:
    middle = (len(image.data) - 1) / 2
    return mean_within(image.data, middle, middle, image.header["R_SUN"])


@pytest.mark.parametrize(("name", "reasons"), [
    (AIA_2011, ("quality", None, None)),  # quick-look
    (AIA_2018, (None, None, None)),
    (HMI_NRT, ("quality", "quality", None)),
    (CONTINUUM, (None, None, None)),
    (CUTOUT, ("cutout",) * 3),
    (MDI, ("wrong_instrument",) * 3),
])  # fmt: skip
def test_the_archive_is_judged(name: str, reasons: tuple[str | None, ...]) -> None:
    segment = real(name)
    for policy, reason in zip(("strict", "usual", "lenient"), reasons, strict=True):
        if reason is None:
            judge(segment.header, segment.data, policy)  # type: ignore[arg-type]
            continue
        with pytest.raises(FitsError) as caught:
            judge(segment.header, segment.data, policy)  # type: ignore[arg-type]
        assert caught.value.reason == reason


def test_the_words_of_the_nrt_magnetogram() -> None:
    segment = real(HMI_NRT)
    with pytest.raises(FitsError, match="LOWINTERPNUM, NOGAPFILL, LIMBFITISSUE, NOCOSMICRAY"):
        judge(segment.header, segment.data)


@pytest.mark.parametrize("name", [AIA_2011, AIA_2018])
@pytest.mark.parametrize("resolution", [256, 512, 1024])
def test_aia_comes_out_in_dn_per_second(name: str, resolution: int) -> None:
    segment = real(name)
    found = calibrate_aia(segment, DiskSettings(resolution=resolution))
    where = geometry(segment.header, (1024, 1024))
    before = mean_within(segment.data, *where.centre, where.radius_pixels)
    rate = before / float(segment.header["EXPTIME"]) / found.notes["degradation"]  # type: ignore[arg-type]
    assert mean_of(found) == pytest.approx(rate, rel=1e-3)
    assert np.isfinite(found.data).all()
    assert found.notes["register"] == "archive"
    limb = found.header["CDELT1"] * found.header["R_SUN"]
    assert limb == pytest.approx(segment.header["RSUN_OBS"], rel=1e-12)


def test_aia_of_2011_and_2018_are_of_one_size() -> None:
    one, other = (calibrate_aia(real(name), DiskSettings(resolution=512))
                  for name in (AIA_2011, AIA_2018))  # fmt: skip
    assert one.header["R_SUN"] == other.header["R_SUN"]
    np.testing.assert_array_equal(one.disk, other.disk)
    assert "T_REC" not in one.header  # the file of 2011 has none, and none is made up
    assert other.header["T_REC"] == "2018-08-20T12:48:06Z"


def test_a_real_magnetogram_turned_by_hand_comes_back() -> None:
    segment = real(HMI_NRT)
    header = segment.header
    turned = Segment(segment.data[::-1, ::-1], header | {
        "CROTA2": float(header["CROTA2"]) + 180.0, "CRPIX1": 1025 - float(header["CRPIX1"]),  # type: ignore[arg-type]
        "CRPIX2": 1025 - float(header["CRPIX2"]),  # type: ignore[arg-type]
    }, True)  # fmt: skip
    settings = DiskSettings(resolution=512)
    one, other = calibrate_hmi(segment, settings), calibrate_hmi(turned, settings)
    np.testing.assert_allclose(one.data, other.data, atol=0.02, equal_nan=True)


def test_a_real_magnetogram_keeps_poles_and_flux() -> None:
    segment = real(HMI_NRT)
    where = geometry(segment.header, (1024, 1024))
    found = calibrate_hmi(segment, DiskSettings(resolution=1024))
    for pick in (np.nanargmax, np.nanargmin):
        row, column = np.unravel_index(pick(segment.data), (1024, 1024))
        place = where.to_sky @ (column - where.centre[0], row - where.centre[1])
        row, column = np.unravel_index(pick(found.data), (1024, 1024))
        there = np.array([column - 511.5, row - 511.5]) * found.header["CDELT1"]
        assert there == pytest.approx(place, abs=1.5 * found.header["CDELT1"])
    assert np.isnan(found.data[~found.disk]).all()
    assert np.isnan(found.data[found.disk]).mean() < 1e-3
    net = np.nanmean(segment.data)
    assert np.nanmean(found.data) == pytest.approx(net, abs=0.02)
    assert found.header["QUALITY"] == 72704
    assert found.header["BUNIT"] == "Gauss"


def test_a_real_continuum_is_turned_north_up() -> None:
    segment = real(CONTINUUM)
    found = calibrate_hmi(segment, DiskSettings(resolution=100), "continuum")
    assert found.notes["crota2"] == pytest.approx(179.929779)
    where = geometry(segment.header, (100, 100))
    assert mean_of(found) == pytest.approx(
        mean_within(segment.data, *where.centre, where.radius_pixels), rel=5e-3
    )
    # The darkest spot is where the header says, on the other side of where the camera has it.
    spots = []
    for data, x, y, to_sky in (
        (segment.data, *where.centre, where.to_sky),
        (found.data, 49.5, 49.5, np.eye(2) * found.header["CDELT1"]),
    ):
        rows, columns = np.indices((100, 100))
        sky = np.tensordot(to_sky, np.stack([columns - x, rows - y]), 1)
        inner = np.where(np.hypot(*sky) < 0.7 * where.radius, np.nan_to_num(data), np.inf)
        spots.append(sky[:, *np.unravel_index(inner.argmin(), inner.shape)])
    assert spots[1] == pytest.approx(spots[0], abs=1.5 * found.header["CDELT1"])
    assert np.hypot(*spots[0]) > 10 * found.header["CDELT1"]


def test_a_real_image_registered_twice_is_the_same() -> None:
    """A level-1 camera made from a real image: turned, moved, of another scale."""
    from preprocess.calibration.resample import resample

    segment = real(AIA_2018)
    header: dict[str, Any] = dict(segment.header)
    angle, step = np.radians(0.0578), 2.402856
    matrix = (step / 2.4) * np.array([[np.cos(angle), -np.sin(angle)],
                                      [np.sin(angle), np.cos(angle)]])  # fmt: skip
    centre = np.array([509.3, 513.1])
    camera = resample(segment.data, matrix, np.array([511.5, 511.5]) - matrix @ centre, 1024)
    level1 = Segment(camera, header | {
        "LVL_NUM": 1.0, "CDELT1": step, "CDELT2": step, "CRPIX1": centre[0] + 1,
        "CRPIX2": centre[1] + 1, "CROTA2": np.degrees(angle)}, True)  # fmt: skip
    settings = DiskSettings(resolution=512)
    once, twice = calibrate_aia(segment, settings), calibrate_aia(level1, settings)
    difference = (once.data - twice.data)[once.disk]
    # What an interpolation more costs, at half the resolution.
    assert np.sqrt(np.mean(difference**2)) < 0.01 * once.data[once.disk].std()
    assert mean_of(twice) == pytest.approx(mean_of(once), rel=2e-4)
