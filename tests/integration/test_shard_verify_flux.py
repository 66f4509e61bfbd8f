"""The flux that a stored tile can have: bounds that hold for every field, and catch a factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocess.dataset.check_shard import flux_bounds
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.cut import cut, reduce_field, tile_flux, tile_grid
from sunpipe.shards.stored import Stored, restore


def bounds(
    fields: np.ndarray, settings: ShardSettings
) -> list[tuple[float, float, float]]:  # fmt: skip
    """Least, stated and largest flux of each tile, gauss times native pixels."""
    stored = Stored(settings.dtype, settings.step)
    found = []
    for place in tile_grid(fields.shape[1:], settings.tile, settings.stride):
        tile = cut(fields, tuple(place), settings.tile)
        flux = tile_flux(tile[0], 1.0, settings.flux_floor_g)
        image, mask = reduce_field(tile, settings.reduce)
        values = restore(stored.quantise(image), stored.scale)
        low, high = flux_bounds(values[0], mask.astype(np.uint8), place, settings)
        found.append((low, flux, high))
    return found


@pytest.mark.parametrize("dtype", ["int16", "float16", "float32"])
@pytest.mark.parametrize("reduce", [1, 2, 4])
@pytest.mark.parametrize("stride", [0, 16])
def test_bounds_hold(dtype: Any, reduce: int, stride: int) -> None:
    chance = np.random.default_rng(5)
    for shape in ((40, 71), (25, 30), (33, 21), (64, 64)):
        fields = chance.normal(0, 200, (3, *shape))
        fields[:, chance.random(shape) < 0.05] = np.nan
        fields[1, chance.random(shape) < 0.05] = np.nan  # counts in Br all the same
        for floor in (0.0, 100.0, 150.2):
            settings = ShardSettings(tile=32, stride=stride, reduce=reduce, dtype=dtype,
                                     flux_floor_g=floor)  # fmt: skip
            for low, flux, high in bounds(fields, settings):
                assert low * (1 - 1e-9) <= flux <= high * (1 + 1e-9)


@pytest.mark.parametrize("shape", [(40, 71), (25, 30), (33, 21)])
def test_bounds_of_native_pixels_are_tight_with_padding_too(shape: tuple[int, int]) -> None:
    fields = np.random.default_rng(5).normal(0, 500, (3, *shape))
    for low, flux, high in bounds(fields, ShardSettings(tile=32, stride=16, reduce=1)):
        assert 0.99 * flux < low <= high < 1.01 * flux


def test_means_give_a_lower_bound() -> None:
    fields = np.full((3, 64, 64), 900.0)
    for low, flux, _ in bounds(fields, ShardSettings(tile=32, stride=16, reduce=4)):
        assert 0.4 * flux < low
