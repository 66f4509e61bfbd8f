"""Cutting and averaging: whole factors, NaN, padding, and coordinates that stay true."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from astropy.wcs import WCS

from preprocess.dataset.patch import centre_mu, tile_wcs
from sunpipe.errors import DataError
from sunpipe.shards.cut import (
    cut,
    cut_vector,
    missing_share,
    reduce_field,
    tile_flux,
    tile_grid,
)
from sunpipe.shards.stored import Stored, restore

HEADER = {"CRPIX1": 372.5, "CRPIX2": 189.0, "CRVAL1": 34.879105, "CRVAL2": -21.0769,
          "CDELT1": 0.03, "CDELT2": 0.03, "CTYPE1": "CRLN-CEA", "CTYPE2": "CRLT-CEA",
          "CRLN_OBS": 21.725103, "CRLT_OBS": -6.8279, "RSUN_REF": 696000000,
          "DSUN_OBS": 147746220503.41}  # fmt: skip


def test_grid_reaches_the_far_edges() -> None:
    grid = tile_grid((377, 744), 128, 48)
    assert grid[:, 0].max() == 377 - 128
    assert grid[:, 1].max() == 744 - 128
    assert len({tuple(offset) for offset in grid.tolist()}) == len(grid)
    assert (np.diff(np.unique(grid[:, 0])) <= 48).all()


def test_grid_of_a_patch_smaller_than_the_tile_is_centred() -> None:
    assert tile_grid((100, 201), 128, 16)[:, 0].tolist() == [-14] * 6
    assert tile_grid((128, 128), 128, 16).tolist() == [[0, 0]]


def test_stride_zero_is_one_centred_canvas() -> None:
    assert tile_grid((377, 744), 512, 0).tolist() == [[-68, 116]]


def test_cut_pads_with_nan_and_keeps_every_pixel() -> None:
    field = np.arange(12.0).reshape(1, 3, 4)
    out = cut(field, (-1, -2), 6)
    assert np.isnan(out).sum() == 36 - 12
    assert np.array_equal(out[0, 1:4, 2:6], field[0])


def test_cut_outside_the_patch_is_all_nan() -> None:
    assert np.isnan(cut(np.ones((1, 3, 4)), (10, -20), 5)).all()


def test_reduce_is_the_mean_of_valid_pixels() -> None:
    field = np.array([[[1.0, 3.0, 1.0, np.nan], [5.0, 7.0, np.nan, np.nan]]])
    means, mask = reduce_field(field, 2)
    assert means.tolist() == [[[4.0, 0.0]]]
    assert mask.tolist() == [[True, False]]


def test_a_pixel_is_valid_only_in_all_channels() -> None:
    field = np.ones((2, 2, 2))
    field[1, 0, 0] = np.nan
    field[0, 0, 0] = 1e6
    means, mask = reduce_field(field, 2)
    assert mask.all()
    assert means.ravel().tolist() == [1.0, 1.0]


def test_reduce_refuses_a_remainder() -> None:
    with pytest.raises(ValueError, match="multiple"):
        reduce_field(np.ones((1, 5, 4)), 2)


def test_reduce_keeps_signed_flux() -> None:
    field = np.random.default_rng(0).normal(size=(3, 64, 64))
    means, _ = reduce_field(field, 4)
    assert means.sum(axis=(1, 2)) * 16 == pytest.approx(field.sum(axis=(1, 2)))


def test_padding_is_no_missing_pixel() -> None:
    fields = np.ones((3, 20, 30), np.float32)
    fields[0, :5] = np.nan
    corner = (-6, -1)
    _, mask = reduce_field(cut(fields, corner, 32), 2)
    assert 1 - mask.mean() > 0.5
    # 10 x 16 stored pixels lie in the patch, those of the outer columns by half. Rows 0 to 3 of
    # the patch are lost; rows 4 and 5 are valid by half, and by a quarter in the outer columns.
    assert missing_share(mask, corner, (20, 30), 2) == pytest.approx((2 * 16 + 2) / 160)
    _, mask = reduce_field(cut(fields, (2, 8), 16), 4)
    assert missing_share(mask, (2, 8), (20, 30), 4) == 1 - mask.mean()  # a tile inside
    assert missing_share(np.zeros((4, 4), bool), (99, 99), (20, 30), 1) == 1.0


def test_cut_vector_shapes() -> None:
    images, masks, offsets = cut_vector(np.ones((3, 40, 50)), 32, 8, 4)
    assert images.shape == (len(offsets), 3, 8, 8)
    assert images.dtype == np.float64
    assert masks.all()


@pytest.mark.parametrize("reduce", [1, 2, 4])
@pytest.mark.parametrize("offset", [(0, 0), (48, 100), (-60, -12)])
def test_tile_wcs_points_at_the_same_sky(reduce: int, offset: tuple[int, int]) -> None:
    """The centre of a stored pixel is the centre of its block of native pixels."""
    tile = tile_wcs(HEADER, offset, reduce)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = WCS({**HEADER, "CUNIT1": "deg", "CUNIT2": "deg"})
        stored = WCS({**{key.upper(): value for key, value in tile.items()},
                      "CUNIT1": "deg", "CUNIT2": "deg"})  # fmt: skip
    for row, column in ((0, 0), (5, 9)):
        x = offset[1] + column * reduce + (reduce - 1) / 2
        y = offset[0] + row * reduce + (reduce - 1) / 2
        there = np.array(native.wcs_pix2world(x, y, 0))
        assert np.array(stored.wcs_pix2world(column, row, 0)) == pytest.approx(there, abs=1e-9)


def test_tile_wcs_needs_its_cards() -> None:
    with pytest.raises(DataError, match="CDELT2"):
        tile_wcs({**HEADER, "CDELT2": "nan"}, (0, 0), 2)


def test_mu_of_the_sub_observer_point_is_one() -> None:
    centre = {**HEADER, "CRVAL1": HEADER["CRLN_OBS"], "CRVAL2": HEADER["CRLT_OBS"]}
    assert centre_mu(centre) == pytest.approx(1.0)
    for card in ("CRLN_OBS", "CRVAL2", "DSUN_OBS", "RSUN_REF"):
        assert centre_mu({**HEADER, card: float("nan")}) is None
    assert centre_mu({**HEADER, "DSUN_OBS": HEADER["RSUN_REF"]}) is None


def test_mu_is_that_of_an_observer_at_a_finite_distance() -> None:
    def at(lon: float, lat: float, **cards: float) -> dict[str, Any]:
        return {**HEADER, "CRVAL1": HEADER["CRLN_OBS"] + lon, "CRVAL2": lat, "CRLT_OBS": 0.0,
                **cards}  # fmt: skip

    q = HEADER["RSUN_REF"] / HEADER["DSUN_OBS"]
    # The limb is where the line of sight is tangent: cos g = R / D, before 90 degrees.
    assert centre_mu(at(math.degrees(math.acos(q)), 0.0)) == pytest.approx(0.0, abs=1e-12)
    assert centre_mu(at(90.0, 0.0)) == pytest.approx(-q, rel=1e-4)
    assert centre_mu(at(90.0, 0.0, DSUN_OBS=1e25)) == pytest.approx(0.0, abs=1e-12)
    # Explicit vectors: the vertical, and the way from the surface to the observer.
    for lon, lat in ((30.0, 0.0), (-60.0, 25.0), (10.0, -45.0)):
        a, b = math.radians(lon), math.radians(lat)
        vertical = np.array([math.cos(b) * math.cos(a), math.cos(b) * math.sin(a), math.sin(b)])
        way = np.array([1 / q, 0.0, 0.0]) - vertical
        assert centre_mu(at(lon, lat)) == pytest.approx(vertical @ way / np.linalg.norm(way))
    # HARP 377: 0.9449261 from infinity
    assert centre_mu(HEADER) == pytest.approx(0.9444174, abs=1e-6)


def test_flux_counts_both_signs_above_the_floor() -> None:
    br = np.array([[150.0, -250.0], [99.0, np.nan]])
    assert tile_flux(br, 2.0, 100.0) == 1600.0
    assert tile_flux(br, 2.0, 0.0) == pytest.approx(1996.0)


def test_rounding_is_of_the_mean_not_of_its_float32() -> None:
    mean = 0.1 + 1e-12  # just above half a step: float32 has no such number
    images, _, _ = cut_vector(np.full((1, 4, 4), mean), 4, 4, 4)
    assert images.dtype == np.float64
    stored = Stored("int16").quantise(images[0])
    assert stored.item() == 1
    back = restore(stored, 0.2)
    assert back.dtype == np.float32
    assert back.item() == np.float32(0.2)
