"""The potential field against closed forms and against the plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sunpipe.physics.potential import jsoc_potential, potential_field

Tensor = torch.Tensor


def monopole(size: int, depth: float, x0: float, y0: float) -> tuple[Tensor, Tensor, Tensor]:
    """Field of a unit pole `depth` pixels under (x0, y0): Bz, Bx, By, each (1, size, size)."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    r3 = ((x - x0) ** 2 + (y - y0) ** 2 + depth**2) ** 1.5
    bz, bx, by = (1e6 * part[None] / r3 for part in (torch.full_like(x, depth), x - x0, y - y0))
    return bz, bx, by


def test_a_buried_dipole_is_recovered() -> None:
    one, other = monopole(160, 8.0, 70.0, 75.0), monopole(160, 8.0, 92.0, 84.0)
    bz, bx, by = (a - b for a, b in zip(one, other, strict=True))
    found_x, found_y = potential_field(bz)
    scale = torch.hypot(bx, by).max()
    inner = slice(20, 140)
    for found, true in ((found_x, bx), (found_y, by)):
        assert (found - true)[:, inner, inner].abs().max() / scale < 0.005


def test_one_pixel_far_away_is_a_point_charge() -> None:
    bz = torch.zeros(1, 64, 80, dtype=torch.float64)
    bz[0, 10, 12] = 300.0
    bx, by = potential_field(bz)
    dx, dy = 60 - 12, 50 - 10
    r3 = math.hypot(dx, dy) ** 3
    assert bx[0, 50, 60].item() == pytest.approx(300 / (2 * math.pi) * dx / r3, rel=1e-3)
    assert by[0, 50, 60].item() == pytest.approx(300 / (2 * math.pi) * dy / r3, rel=1e-3)
    assert abs(bx[0, 10, 12].item()) < 1e-10  # its own field is vertical


def test_every_pixel_has_the_same_field() -> None:
    one = torch.zeros(2, 21, 33, dtype=torch.float64)
    one[0, 2, 3], one[1, 17, 28] = 100.0, 100.0
    for component in potential_field(one):
        here, there = component[0, :6, :8], component[1, 15:, 25:]
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wavelength", [6.0, 10.0, 25.0])
def test_a_wave_is_turned_by_a_quarter(wavelength: float) -> None:
    x = torch.arange(400, dtype=torch.float64)
    k = 2 * math.pi / wavelength
    bz = torch.cos(k * x).expand(1, 300, -1)
    bx, by = potential_field(bz)
    middle = (0, slice(145, 155), slice(180, 220))
    torch.testing.assert_close(
        bx[middle], torch.sin(k * x).expand_as(bx[0])[middle[1:]], rtol=0, atol=0.01
    )
    assert by[middle].abs().max() < 0.01


def test_nothing_wraps_round() -> None:
    y, x = torch.meshgrid(*[torch.arange(32, dtype=torch.float64)] * 2, indexing="ij")
    bz = 100 * torch.exp(-((x - 31) ** 2 + (y - 16) ** 2) / 8)[None]
    bx, _ = potential_field(bz)
    assert (bx[0, 16, :31] < 0).all()  # away from the pole everywhere, also at the far edge
    assert bx[0, 16, 0].abs() < bx[0, 16, 15].abs()


def test_jsoc_potential_is_its_windowed_sum() -> None:
    rng = np.random.default_rng(1)
    bz = rng.normal(size=(26, 31))
    bz[4, 7] = np.nan
    phi = np.zeros_like(bz)
    for row in range(26):
        for column in range(31):
            if np.isnan(bz[row, column]):
                continue
            rows = slice(max(0, row - 10), min(26, row + 10))
            columns = slice(max(0, column - 10), min(31, column + 10))
            r, c = np.mgrid[rows, columns]
            distance = np.sqrt((r - row) ** 2 + (c - column) ** 2 + 1e-6)
            phi[row, column] = (np.nan_to_num(bz[r, c]) * 0.001 / distance).sum()
    valid = torch.tensor(np.isfinite(bz))[None]
    clean = torch.tensor(np.nan_to_num(bz))[None]
    np.testing.assert_allclose(jsoc_potential(clean, valid)[0], phi, rtol=0, atol=1e-13)
    single = jsoc_potential(clean.float(), valid)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single[0], phi, rtol=0, atol=1e-6)


def test_a_kernel_made_in_inference_mode_serves_gradients() -> None:
    with torch.inference_mode():
        potential_field(torch.ones(1, 11, 17, dtype=torch.float64))
    bz = torch.randn(1, 11, 17, dtype=torch.float64, requires_grad=True)
    potential_field(bz)[0].square().sum().backward()
    assert bz.grad is not None
    assert bz.grad.isfinite().all()
