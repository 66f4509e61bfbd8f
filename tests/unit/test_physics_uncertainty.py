"""Formal errors against the scatter of many noisy copies of one field."""

from __future__ import annotations

import pytest
import torch

from sunpipe.physics import CONVENTIONS
from sunpipe.physics.measurement import FORMULAS, make_patches
from sunpipe.physics.uncertainty import ERRORS

Tensor = torch.Tensor
COPIES = 1500
# Potential energies: their error leaves out Br's share through the potential field.
FROM_HORIZONTAL_ONLY = ("MEANPOT", "TOTPOT", "MEANSHR")


@pytest.fixture(scope="module")
def field() -> Tensor:
    """A strong smooth field, (1, 3, 24, 24) gauss, nowhere near the 100 G limits."""
    y, x = torch.meshgrid(*[torch.arange(24, dtype=torch.float64)] * 2, indexing="ij")
    bz = 1200 + 300 * torch.sin(x / 5) * torch.cos(y / 4)
    bx = 600 + 250 * torch.cos(y / 3 + 1) + 40 * x
    by = 500 + 250 * torch.sin(x / 3) + 30 * y
    return torch.stack((bz, -by, bx))[None]


@pytest.fixture(scope="module")
def mask() -> Tensor:
    """Pixels far enough apart to share no neighbour: errors add up as independent."""
    mask = torch.zeros(1, 24, 24, dtype=torch.bool)
    mask[:, 2:22:4, 2:22:4] = True
    return mask


@pytest.mark.parametrize(
    ("name", "convention"),
    # jsoc's error of MEANSHR is that of one pixel
    sorted({(n, c) for n in ERRORS for c in CONVENTIONS} - {("MEANSHR", "jsoc")}),
)
def test_formal_error_is_the_scatter(
    name: str, convention: str, field: Tensor, mask: Tensor
) -> None:
    sigma = torch.tensor([8.0, 15.0, 11.0], dtype=torch.float64).view(1, 3, 1, 1)
    sigma = sigma.expand_as(field).clone()
    if name in FROM_HORIZONTAL_ONLY:
        sigma[:, 0] = 0
    torch.manual_seed(11)
    noisy = field + sigma * torch.randn(COPIES, *field.shape[1:], dtype=torch.float64)
    length, scale = torch.full((COPIES,), 4e7), torch.full((COPIES,), 7.2e5)
    many = make_patches(noisy, length, scale, convention, mask.expand(COPIES, -1, -1))
    one = make_patches(field, length[:1], scale[:1], convention, mask)
    scatter = FORMULAS[name](many).std().item()
    assert ERRORS[name](one, sigma).item() == pytest.approx(scatter, rel=0.1)
