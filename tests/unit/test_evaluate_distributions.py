"""Pixel values, fluxes and their distances against exact answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sunpipe.evaluate.distributions import (
    BINS,
    edges,
    flux,
    histogram_distance,
    histograms,
    quantiles,
    wasserstein,
)
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import encode

VIEW = NormalizeSettings("asinh", 100.0, 3000.0, 0.0)


def shares(values: np.ndarray) -> np.ndarray:
    image = encode(torch.from_numpy(values).reshape(1, 1, 1, -1), VIEW)
    return histograms(image).numpy()[0, 0].astype(float)


def test_histograms_hold_every_pixel_and_clamp_what_is_beyond() -> None:
    image = torch.tensor([[-9.0, 0.0], [0.001, 9.0]]).reshape(1, 1, 2, 2)
    found = histograms(image)[0, 0]
    assert float(found.sum()) == 1
    assert float(found[0]) == 0.25
    assert float(found[-1]) == 0.25
    assert float(found[BINS // 2]) == 0.5


def test_each_image_and_channel_has_its_own_histogram() -> None:
    image = torch.linspace(-1, 1, 2 * 3 * 16).reshape(2, 3, 4, 4)
    whole = histograms(image)
    for b in range(2):
        for c in range(3):
            alone = histograms(image[b : b + 1, c : c + 1])[0, 0]
            assert torch.equal(whole[b, c], alone)


def test_edges_are_physical_values_in_rising_order() -> None:
    edge = edges(VIEW, 3)
    assert edge.shape == (3, BINS + 1)
    assert (np.diff(edge) > 0).all()
    assert edge[0, BINS // 2] == pytest.approx(0, abs=1e-9)
    assert edge[1, -1] > 3000


@pytest.mark.parametrize("shift", [5.0, 50.0, 500.0])
def test_the_distance_of_histograms_is_that_of_the_pixels(shift: float) -> None:
    rng = np.random.default_rng(0)
    one = rng.laplace(0, 200, 40000)
    two = 1.1 * rng.laplace(0, 200, 30000) + shift
    found = histogram_distance(shares(one), shares(two), edges(VIEW, 1)[0])
    assert found == pytest.approx(wasserstein(one, two), rel=0.05, abs=1.5)
    assert histogram_distance(shares(one), shares(one), edges(VIEW, 1)[0]) == 0


def test_a_crossing_inside_a_bin_is_integrated_exactly() -> None:
    edge = np.array([0.0, 1.0, 2.0, 3.0])
    one, two = np.array([0.5, 0.0, 0.5]), np.array([0.0, 1.0, 0.0])
    # difference of the distribution functions: 0, 1/2, -1/2, 0
    assert histogram_distance(one, two, edge) == pytest.approx(0.25 + 2 * 0.125 + 0.25)


def test_wasserstein_of_a_shift_is_the_shift() -> None:
    x = np.random.default_rng(1).standard_normal(200)
    assert wasserstein(x, x + 0.7) == pytest.approx(0.7)
    assert wasserstein(x, np.concatenate([x, x])) == pytest.approx(0, abs=1e-12)


def test_quantiles_of_histograms_are_those_of_pixels() -> None:
    rng = np.random.default_rng(2)
    values = rng.gamma(2.0, 150.0, (4, 20000))
    found = np.stack([shares(row) for row in values])
    for level in (0.5, 0.99):
        exact = np.quantile(values, level, axis=1)
        np.testing.assert_allclose(quantiles(found, edges(VIEW, 1)[0], level), exact, rtol=0.02)


def test_flux_of_whole_patches() -> None:
    field = torch.tensor([[1.0, -3.0], [2.0, 0.0]]).repeat(2, 6, 6)
    field[1] = 0
    found = flux(field, 7e7)
    total = 6 * 36 * 7e7**2
    torch.testing.assert_close(found, torch.tensor([[total, 0.0], [0.0, 0.0]], dtype=torch.float64))
    assert float(flux(field[:1].abs(), 7e7)[0, 1]) == 1
