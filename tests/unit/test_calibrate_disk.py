"""Full-disk geometry and resampling against skies, and libraries, that know the answer."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from preprocess.calibrate import DiskSettings, calibrate_aia, calibrate_hmi
from preprocess.calibration.disk import (
    check_full_disk,
    disk_mask,
    geometry,
    target_map,
    target_scale,
)
from preprocess.calibration.image import RSUN_SHARE
from preprocess.calibration.resample import points_per_side, resample
from sunpipe.fits import Segment
from sunpipe.fitsfile import FitsError
from tests.unit.disk_fake import aia_cards, cards, dipole, hmi_cards, places, seen, sky

PLAIN = {"degradation": False}


@pytest.mark.parametrize(
    ("rotation", "shift"),
    [(0.0, (0.0, 0.0)), (33.0, (6.2, -3.7)), (179.93, (-2.4, 5.1)), (-0.06, (0.3, 0.4))],
)
@pytest.mark.parametrize("resolution", [64, 256, 300])
def test_a_known_sky_is_found_again(
    rotation: float, shift: tuple[float, float], resolution: int
) -> None:
    segment = seen(aia_cards(rotation=rotation, shift=shift))
    found = calibrate_aia(segment, DiskSettings(resolution=resolution, **PLAIN))
    west, north = places(found.header, resolution)
    # The pixel of a smaller result is a mean over its area; so is the truth here.
    step, n = found.header["CDELT1"], 4
    offsets = ((np.arange(n) + 0.5) / n - 0.5) * step
    truth = np.mean([sky(west + x, north + y) for x in offsets for y in offsets], axis=0) / 2.0
    on = found.disk & np.isfinite(found.data)
    assert on.sum() == found.disk.sum()
    tolerance = 0.004 if resolution < 200 else 0.002
    assert np.abs(found.data - truth)[on].max() < tolerance * truth.max()


def test_the_limb_has_one_radius_and_the_scale_says_so() -> None:
    for radius in (945.0, 976.0):
        distance = 696e6 / math.sin(math.radians(radius / 3600))
        header = aia_cards() | {"RSUN_OBS": radius, "DSUN_OBS": distance}
        found = calibrate_aia(seen(header), DiskSettings(resolution=256, **PLAIN))
        assert found.header["R_SUN"] == pytest.approx(RSUN_SHARE * 128)
        assert found.header["R_SUN"] * found.header["CDELT1"] == pytest.approx(radius)
        assert np.sqrt(found.disk.sum() / np.pi) == pytest.approx(RSUN_SHARE * 128, rel=1e-3)
    # 976 arcsec on 4096 pixels is 0.6 arcsec per pixel, the scale of level 1.5.
    assert target_scale(976.0, 4096, RSUN_SHARE) == pytest.approx(0.6)


def test_a_dipole_keeps_its_sign_and_comes_to_its_place() -> None:
    header = hmi_cards(rotation=179.929779, shift=(3.3, -1.8), scale=8.1)
    found = calibrate_hmi(seen(header, what=dipole), DiskSettings(resolution=512))
    west, north = places(found.header, 512)
    for pick, x, y, sign in ((np.nanargmax, 420.0, 210.0, 1), (np.nanargmin, 300.0, 190.0, -1)):
        peak = np.unravel_index(pick(found.data), found.data.shape)
        assert (west[peak], north[peak]) == pytest.approx((x, y), abs=found.header["CDELT1"])
        assert sign * found.data[peak] > 700
    assert np.isnan(found.data[~found.disk]).all()
    assert np.isnan(found.data[found.disk]).mean() < 0.005  # the limb's own pixels at most
    assert found.header["BUNIT"] == "Gauss"
    assert found.header["CROTA2"] == 0.0


def test_turning_the_camera_changes_nothing() -> None:
    header = hmi_cards(rotation=0.3, shift=(2.2, -1.1))
    upright = seen(header, what=dipole)
    turned = Segment(upright.data[::-1, ::-1], header | {"CROTA2": 180.3, "CRPIX1":
                     257 - header["CRPIX1"], "CRPIX2": 257 - header["CRPIX2"]}, True)  # fmt: skip
    settings = DiskSettings(resolution=200)
    one, other = calibrate_hmi(upright, settings), calibrate_hmi(turned, settings)
    np.testing.assert_allclose(one.data, other.data, atol=2e-3, equal_nan=True)


def test_pc_matrix_crval_and_degrees_mean_the_same() -> None:
    plain = cards(rotation=20.0, shift=(4.0, 2.0))
    angle = np.radians(20.0)
    matrix = {"PC1_1": np.cos(angle), "PC1_2": -np.sin(angle),
              "PC2_1": np.sin(angle), "PC2_2": np.cos(angle)}  # fmt: skip
    first = geometry(plain, (256, 256))
    assert first.rotation == pytest.approx(20.0)
    degrees = {f"{key}{n}": plain[f"{key}{n}"] / 3600 for key in ("CDELT", "CRVAL") for n in (1, 2)}
    rest = {key: value for key, value in plain.items() if key != "CROTA2"}
    shifted = plain | {
        "CRPIX1": plain["CRPIX1"] + 3, "CRVAL1": first.to_sky[0, 0] * 3,
        "CRVAL2": first.to_sky[1, 0] * 3,
    }  # fmt: skip
    for other in (rest | matrix, plain | degrees | {"CUNIT1": "deg", "CUNIT2": "deg"}, shifted):
        found = geometry(other, (256, 256))
        assert found.centre == pytest.approx(first.centre)
        np.testing.assert_allclose(found.to_sky, first.to_sky, atol=1e-9)


@pytest.mark.parametrize("change", [
    {"CRPIX1": None}, {"CRPIX2": "nan"}, {"CDELT1": float("nan")}, {"CDELT1": -1.0},
    {"CDELT2": 3.0},
    {"CTYPE1": "HPLN-CEA"}, {"CTYPE2": "HPLN-TAN"}, {"CUNIT1": "km"}, {"CROTA2": None},
    {"RSUN_OBS": 1600.0}, {"RSUN_OBS": None, "DSUN_OBS": None}, {"PC1_1": 2.0, "PC2_2": 2.0},
])  # fmt: skip
def test_impossible_geometry_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FitsError) as caught:
        geometry(cards() | change, (256, 256))
    assert caught.value.reason == "geometry"


def test_the_radius_comes_from_the_distance_when_it_must() -> None:
    found = geometry(cards() | {"RSUN_OBS": None}, (256, 256))
    assert found.radius_card == "DSUN_OBS"
    assert found.radius == pytest.approx(np.degrees(np.arcsin(696e6 / 149.5e9)) * 3600)


def test_a_cutout_is_refused() -> None:
    check_full_disk(geometry(cards(), (256, 256)), "a")
    for place in ({"shift": (30.0, 0.0)}, {"scale": 6.0}):
        with pytest.raises(FitsError, match="cutout") as caught:
            check_full_disk(geometry(cards(**place), (256, 256)), "a")
        assert caught.value.reason == "cutout"


def test_it_is_the_spline_of_scipy() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(90, 70)).astype(np.float32)
    angle = np.radians(0.7)
    matrix = 0.97 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.array([3.2, 4.7])
    assert points_per_side(matrix) == 1
    ours = resample(image, matrix, offset, 60)
    swap = matrix[::-1, ::-1]  # scipy counts (row, column)
    theirs = affine_transform(image.astype(np.float64), swap, offset[::-1], (60, 60), order=3,
                              mode="mirror")  # fmt: skip
    theirs = np.clip(theirs, image.min(), image.max())
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_register_of_aiapy_gives_the_same_pixels() -> None:
    pytest.importorskip("aiapy")
    from preprocess.calibration.aia import register_by_aiapy

    rng = np.random.default_rng(1)
    header = aia_cards(512, rotation=0.0578, shift=(-5.7, 0.9), scale=4.805712)
    image = (seen(header, 512).data + rng.normal(0, 5, (512, 512))).astype(np.float32)
    theirs, cards_there = register_by_aiapy(image, header)
    here, there = geometry(header, image.shape), geometry(cards_there, theirs.shape)
    assert there.rotation == pytest.approx(0, abs=1e-9)
    assert there.scale == pytest.approx(4.8)
    matrix = np.linalg.inv(here.to_sky) @ there.to_sky
    ours = resample(image, matrix, np.array(here.centre) - matrix @ np.array(there.centre), 512)
    inner = np.s_[20:-20, 20:-20]
    # float32 rounding of values up to 1100 DN
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-3)


def test_the_way_by_aiapy_ends_at_the_same_image() -> None:
    pytest.importorskip("aiapy")
    header = aia_cards(512, rotation=0.0578, shift=(-5.7, 0.9), scale=4.805712)
    segment = seen(header, 512)
    one, two = (calibrate_aia(segment, DiskSettings(resolution=512, register=way, **PLAIN))
                for way in ("affine", "aiapy"))  # fmt: skip
    assert "aiapy" in two.notes
    assert one.header == two.header
    # Two interpolations in a row against one.
    assert np.abs(one.data - two.data)[one.disk].max() < 2e-3 * np.nanmax(one.data)


def test_level_1_5_is_not_registered_again() -> None:
    header = aia_cards() | {"LVL_NUM": 1.5}
    one, two = (calibrate_aia(seen(header), DiskSettings(resolution=128, register=way, **PLAIN))
                for way in ("affine", "aiapy"))  # fmt: skip
    assert two.notes["register"] == "archive"
    assert "aiapy" not in two.notes
    np.testing.assert_array_equal(one.data, two.data)


def _flux(image: Any, x: float, y: float, radius: float) -> float:
    """Mean over the disk, faded out around the limb so that no edge pixel decides."""
    rows, columns = np.indices(image.shape)
    away = np.hypot(columns - x, rows - y) / radius
    weight = np.clip((1.15 - away) / 0.3, 0, 1)
    assert np.isfinite(image[weight > 0]).all()
    return float((np.nan_to_num(image) * weight).sum() / weight.sum())


@pytest.mark.parametrize("resolution", [64, 100, 256, 430, 700])
def test_the_mean_intensity_of_the_disk_is_kept(resolution: int) -> None:
    rng = np.random.default_rng(2)
    header = aia_cards(512, rotation=12.0, shift=(3.3, 2.1))
    image = seen(header, 512).data * rng.uniform(0.5, 1.5, (512, 512))
    where = geometry(header, image.shape)
    found = resample(image, *target_map(where, resolution, RSUN_SHARE), resolution)
    middle = (resolution - 1) / 2
    mean = _flux(found, middle, middle, RSUN_SHARE * resolution / 2)
    assert mean == pytest.approx(_flux(image, *where.centre, where.radius_pixels), rel=1e-3)


@pytest.mark.parametrize("resolution", [64, 256])
def test_missing_pixels_stay_missing_and_spoil_nothing(resolution: int) -> None:
    header = aia_cards()
    whole = seen(header).data
    holed = whole.copy()
    holed[100:130, 140:180] = np.nan
    holed[10, 20] = np.inf
    where = geometry(header, whole.shape)
    there = target_map(where, resolution, RSUN_SHARE)
    complete, partial = (resample(image, *there, resolution) for image in (whole, holed))
    lost = np.isnan(partial)
    assert np.isfinite(complete).all()
    side = abs(np.linalg.det(there[0]))
    assert lost.sum() == pytest.approx((30 * 40) / side, rel=0.12)
    # Of what is left, the ring next to the hole rests on fewer pixels; the rest is the same.
    near = np.zeros_like(lost)
    for row, column in np.argwhere(lost):
        near[max(row - 8, 0) : row + 9, max(column - 8, 0) : column + 9] = True
    near[: resolution // 8, : resolution // 8] = True
    np.testing.assert_allclose(partial[~near], complete[~near], rtol=2e-4, atol=2e-2)
    assert np.abs(partial - complete)[~lost].max() < 0.1 * complete.max()


def test_values_never_leave_the_range_of_the_image() -> None:
    image = np.zeros((64, 64), np.float32)
    image[30, 31] = 16383.0
    found = resample(image, np.eye(2), np.array([0.4, 0.3]), 60)
    assert found.min() >= 0
    assert 0 < found.max() <= 16383


def test_off_the_frame_there_is_nothing() -> None:
    found = resample(np.ones((50, 50)), np.eye(2), np.array([-10.0, -10.0]), 70)
    assert np.isnan(found[:9]).all()
    assert np.isnan(found[:, 61:]).all()
    np.testing.assert_allclose(found[10:60, 10:60], 1.0, rtol=1e-6)


def test_the_result_is_a_map_for_sunpy() -> None:
    import sunpy.map

    found = calibrate_aia(seen(aia_cards(rotation=5.0)), DiskSettings(resolution=128))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = sunpy.map.Map(found.data, found.header)
    assert read.instrument.startswith("AIA")
    assert read.scale.axis1.value == pytest.approx(found.header["CDELT1"])
    assert read.rsun_obs.value == pytest.approx(960.0)
    assert read.rotation_matrix == pytest.approx(np.eye(2))
    centre = read.wcs.world_to_pixel_values(0, 0)
    assert np.array(centre) == pytest.approx((63.5, 63.5))
    assert str(read.unit) in ("DN / s", "ct / s", "dn / s")


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"resolution": 8}, {"rsun_share": 1.2}, {"register": "idl"},
                  {"min_exposure_s": 0.0}, {"occult_limb": 0.9}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DiskSettings(**wrong)  # type: ignore[arg-type]


def test_the_corona_can_be_cut_off() -> None:
    found = calibrate_aia(seen(aia_cards()), DiskSettings(resolution=128, occult_limb=1.1, **PLAIN))
    np.testing.assert_array_equal(np.isfinite(found.data), disk_mask(128, RSUN_SHARE, 1.1))
