"""The simulated field gives back its inputs, measured by sunpipe.physics."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import torch

from preprocess.simulation.field import grid, network, radial_field, texture, vector_field
from preprocess.simulation.region import PIXEL_CM, Region, draw_region
from sunpipe.physics.measurement import measure

FIRST = datetime(2012, 3, 1)
NAMES = ("USFLUX", "MEANALP", "POLSEP", "TILT", "FLUXIMB")


def region(number: int, **changes: float) -> Region:
    return replace(
        draw_region(np.random.default_rng([7, number]), FIRST, 6.0, (200, 320)), **changes
    )


def noise_free(drawn: Region, seconds: float = 0.0) -> tuple[np.ndarray, object]:
    grain = texture((7, 1), drawn.shape, seconds)
    bz, truth = radial_field(drawn, seconds, grain, PIXEL_CM)
    return vector_field(bz, truth.alpha, PIXEL_CM), truth


def measured(field: np.ndarray) -> dict[str, float]:
    """Over all pixels, as there is no noise."""
    fields = torch.from_numpy(np.stack([field[2], -field[1], field[0]]))[None]
    everywhere = torch.ones((1, *field.shape[1:]), dtype=torch.bool)
    found = measure(fields, PIXEL_CM, mask=everywhere, names=NAMES)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("number", range(8))
def test_flux_twist_separation_and_tilt_come_back(number: int) -> None:
    drawn = region(number)
    field, truth = noise_free(drawn)
    found = measured(field)
    assert found["USFLUX"] == pytest.approx(truth.flux_mx, rel=1e-5)
    assert found["POLSEP"] == pytest.approx(truth.separation_mm, rel=1e-5)
    assert found["TILT"] == pytest.approx(truth.tilt_deg, abs=1e-3)
    assert found["FLUXIMB"] == pytest.approx(truth.imbalance, abs=1e-4)
    # central differences of structure as fine as two pixels lose a few per cent of Jz
    assert found["MEANALP"] == pytest.approx(truth.alpha, rel=0.05, abs=1.5e-3)


@pytest.mark.parametrize("number", range(8))
def test_what_was_asked_for_is_reached(number: int) -> None:
    drawn = region(number, age_s=1e9)
    _, truth = noise_free(drawn)
    assert truth.growth == 1.0
    assert truth.flux_mx == pytest.approx(drawn.flux_mx)
    assert truth.separation_mm == pytest.approx(drawn.separation_mm, rel=2e-3)
    assert truth.tilt_deg == pytest.approx(drawn.tilt_deg, abs=0.1)


@pytest.mark.parametrize("alpha", [-0.05, -0.01, 0.0, 0.02, 0.05])
def test_twist_is_what_it_is_set_to(alpha: float) -> None:
    field, _ = noise_free(region(1, alpha=alpha, age_s=1e9))
    assert measured(field)["MEANALP"] == pytest.approx(alpha, rel=0.05, abs=1e-3)


def test_the_field_is_that_of_one_monopole_over_its_own_bz() -> None:
    shape, depth = (256, 256), 12.0
    y, x = np.mgrid[: shape[0], : shape[1]] - 127.5
    bz = (1000 * depth**3 / (x**2 + y**2 + depth**2) ** 1.5).astype(np.float32)
    field = vector_field(bz, 0.0, PIXEL_CM)
    near = np.hypot(x, y) < 40
    # B = q r / (2 pi |r|^3) from a source at depth d: Bx / Bz = x / d
    exact = bz * x / depth
    assert np.abs(field[0] - exact)[near].max() < 0.02 * np.abs(exact).max()
    assert np.array_equal(field[2], bz)


def test_the_current_is_alpha_bz_in_every_pixel() -> None:
    """Of smooth spots: central differences see structure of two pixels only dimly."""
    y, x = np.mgrid[:200, :320]
    spots = [np.exp(-((x - at) ** 2 + (y - 100) ** 2) / 200) for at in (110, 210)]
    bz = (2000 * (spots[0] - spots[1])).astype(np.float32)
    bx, by, _ = vector_field(bz, 0.03, PIXEL_CM)
    current = np.gradient(by, axis=1) - np.gradient(bx, axis=0)
    expected = 0.03 * PIXEL_CM / 1e8 * bz
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(current - expected)[inner].max() < 0.03 * np.abs(expected).max()
    bx, by, _ = vector_field(bz, 0.0, PIXEL_CM)
    current = np.gradient(by, axis=1) - np.gradient(bx, axis=0)
    assert np.abs(current)[inner].max() < 0.03 * np.abs(expected).max()


def test_a_region_emerges() -> None:
    drawn = region(3, age_s=0.3 * 86400, rise_s=3 * 86400.0)
    days = [drawn.growth(day * 86400.0) for day in range(5)]
    assert days == sorted(days)
    assert days[0] < 0.1
    assert days[-1] == 1.0
    early, late = (noise_free(drawn, day * 86400.0)[1] for day in (0.5, 4.0))
    assert early.flux_mx < late.flux_mx
    assert early.separation_mm < late.separation_mm


def test_polarities_that_overlap_say_what_they_reached() -> None:
    drawn = region(4, separation_mm=1.0, flux_mx=2e22, age_s=1e9)
    field, truth = noise_free(drawn)
    found = measured(field)
    assert truth.separation_mm > 1.0
    assert found["POLSEP"] == pytest.approx(truth.separation_mm, rel=1e-4)
    assert found["USFLUX"] == pytest.approx(truth.flux_mx, rel=1e-5)


def test_fields_are_those_of_the_sun() -> None:
    peaks = [np.abs(noise_free(region(number, age_s=1e9))[0][2]).max() for number in range(6)]
    assert min(peaks) > 500.0
    assert max(peaks) < 5000.0  # what HMI's inversion can return


def test_drawn_regions_follow_the_laws_they_are_drawn_from() -> None:
    drawn = [draw_region(np.random.default_rng(n), FIRST, 6.0) for n in range(3000)]
    north = np.array([one.lat_deg > 0 for one in drawn])
    signs = np.array([one.west_sign for one in drawn])
    # cycle 24: negative leads in the north; 8.4 % do not
    assert np.mean(np.where(north, signs < 0, signs > 0)) == pytest.approx(0.916, abs=0.02)
    obeys = np.where(north, [one.alpha < 0 for one in drawn], [one.alpha > 0 for one in drawn])
    assert np.mean(obeys) == pytest.approx(0.69, abs=0.03)
    tilts = np.array([one.tilt_deg for one in drawn])
    joy = np.array([32.1 * math.sin(math.radians(one.lat_deg)) for one in drawn])
    assert np.mean(tilts + joy) == pytest.approx(0.0, abs=1.5)
    sizes = np.log([one.shape for one in drawn])
    assert sizes.mean(0) == pytest.approx([5.61, 6.32], abs=0.05)
    assert np.corrcoef(sizes.T)[0, 1] == pytest.approx(0.90, abs=0.03)
    later = draw_region(np.random.default_rng(1), datetime(2023, 1, 1), 6.0)
    assert later.west_sign == -draw_region(np.random.default_rng(1), FIRST, 6.0).west_sign


def test_the_quiet_sun_has_the_wanted_rms_and_both_signs() -> None:
    quiet = network((1, 2), (200, 300), 11.0)
    assert quiet.std() == pytest.approx(11.0, rel=1e-3)
    assert abs(quiet.mean()) < 0.5
    assert np.median(np.abs(quiet)) < 4.0  # rare strong grains, not noise


def test_the_grid_is_padded() -> None:
    assert all(
        one >= 1.5 * two for one, two in zip(grid((200, 320)).shape, (200, 320), strict=True)
    )
