"""Gradients of the quantities by the field, against finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from sunpipe.physics import CONVENTIONS, QUANTITIES, measure

Tensor = torch.Tensor
PIXEL = 3.6e7
DIFFERENTIABLE = [name for name, quantity in QUANTITIES.items() if quantity.differentiable]


def waves(height: int = 18, width: int = 22) -> Tensor:
    """Smooth fields of both polarities, (1, 3, H, W) gauss."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )  # fmt: skip
    parts = (torch.sin(x / 3 + 0.4), torch.cos(y / 4 + x / 7), torch.cos((x + y) / 5 + 0.2))
    return 900 * torch.stack(parts)[None]


def found(fields: Tensor, convention: str, mask: Tensor) -> dict[str, Tensor]:
    # The line-of-sight field follows the vector, so that its quantities have a gradient too.
    los = 0.8 * fields[:, 0] + 0.1 * fields[:, 1]
    return measure(fields, PIXEL, mask, DIFFERENTIABLE, convention, los=los)


def gradient(value: Tensor, fields: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), fields, retain_graph=True)[0]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradients_are_the_slopes(convention: str) -> None:
    torch.manual_seed(4)
    fields = waves().requires_grad_()
    mask = torch.rand(1, *fields.shape[2:]) < 0.7
    values = found(fields, convention, mask)
    direction, step = torch.randn_like(fields), 1e-4
    with torch.no_grad():
        ahead, behind = (
            found(fields + sign * step * direction, convention, mask) for sign in (1, -1)
        )
    for name in DIFFERENTIABLE:
        slope = (ahead[name] - behind[name]).item() / (2 * step)
        along = (gradient(values[name], fields) * direction).sum().item()
        assert along == pytest.approx(slope, rel=1e-5), name
        assert along != 0, name


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradients_are_finite_beside_holes_and_zeros(convention: str) -> None:
    fields = waves()
    fields[:, :, 3:6, 4:8] = math.nan
    fields[:, 1:, 9:12, 9:12] = 0.0  # no horizontal field
    fields[:, :, 14:, :5] = 0.0  # no field at all, and counted
    fields.requires_grad_()
    mask = torch.ones(1, *fields.shape[2:], dtype=torch.bool)
    mask[:, :, 18:] = False
    for name, value in found(fields, convention, mask).items():
        slopes = gradient(value, fields)
        assert value.isfinite(), name
        assert slopes.isfinite().all(), name
        assert (slopes[:, :, 3:6, 4:8] == 0).all(), name


def test_a_field_can_be_driven() -> None:
    """What gradients are for: one step along that of TOTUSJH raises it, by what it says."""
    fields = waves().requires_grad_()
    before = measure(fields, PIXEL, names=["TOTUSJH"])["TOTUSJH"]
    slopes = gradient(before, fields)
    step = 1.0 / slopes.norm()
    after = measure(fields + step * slopes, PIXEL, names=["TOTUSJH"])["TOTUSJH"]
    assert (after - before).item() == pytest.approx(slopes.norm().item(), rel=0.05)


def test_counts_have_no_gradient() -> None:
    names = sorted(QUANTITIES.keys() - set(DIFFERENTIABLE))
    assert names == ["AREA_ACR", "AREA_MM2", "CMASKL", "SHRGT45"]
    fields = waves().requires_grad_()
    mask = torch.ones(1, *fields.shape[2:], dtype=torch.bool)
    values = measure(fields, PIXEL, mask, names, los=fields[:, 0], active=mask)
    assert not any(value.requires_grad for value in values.values())


def test_a_patch_of_one_polarity_leaves_the_gradient_of_the_others() -> None:
    fields = waves().repeat(2, 1, 1, 1)
    fields[1, 0] = fields[1, 0].abs() + 300  # one polarity only
    fields.requires_grad_()
    values = measure(fields, PIXEL, None, ("POLSEP", "TILT"))
    alone = waves().requires_grad_()
    for name in ("POLSEP", "TILT"):
        assert bool(values[name][1].isnan())
        slope = gradient(torch.nan_to_num(values[name]), fields)
        expected = gradient(measure(alone, PIXEL, None, (name,))[name], alone)
        torch.testing.assert_close(slope[:1], expected)
        assert float(slope[1].abs().max()) == 0
