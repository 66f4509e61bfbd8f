"""Patches of different sizes in one call, and the device of their tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sunpipe.physics import CONVENTIONS, QUANTITIES, measure, measure_patches

Tensor = torch.Tensor
SHAPES = [(20, 24), (33, 18), (20, 24), (9, 40), (5, 5), (33, 18), (20, 24)]
PIXELS = [3.6e7, 7e7, 7.3e7, 3.6e7, 3.6e7, 1.4e8, 3.6e7]


def patches(device: str = "cpu") -> list[Tensor]:
    torch.manual_seed(8)
    found = []
    for height, width in SHAPES:
        rough = torch.randn(1, 3, height + 4, width + 4, dtype=torch.float64)
        found.append(2500 * torch.nn.functional.avg_pool2d(rough, 5, stride=1)[0].to(device))
    found[2][:, 4:7, 5:9] = math.nan
    return found


def maps(fields: list[Tensor]) -> dict[str, list[Tensor | None]]:
    """A mask for every second patch, a line-of-sight field for all but one."""
    masks = [part[0].abs() > 100 if place % 2 else None for place, part in enumerate(fields)]
    los: list[Tensor | None] = [0.9 * part[0] for part in fields]
    los[5] = None
    return {"masks": masks, "los": los, "active": [part[1] > 200 for part in fields]}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_each_patch_measures_as_alone(convention: str, dtype: torch.dtype) -> None:
    fields = patches()
    extras = maps(fields)
    together = measure_patches(fields, PIXELS, convention=convention, dtype=dtype, **extras)
    assert set(together) == set(QUANTITIES)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for place, part in enumerate(fields):
        own: dict[str, Any] = {
            name: None if some[place] is None else some[place][None]  # type: ignore[index]
            for name, some in extras.items()
        }
        alone = measure(
            part[None], PIXELS[place], own["masks"], convention=convention, los=own["los"],
            active=own["active"], dtype=dtype,
        )  # fmt: skip
        for name in QUANTITIES:
            torch.testing.assert_close(
                together[name][place], alone[name][0], rtol=tolerance, atol=0, equal_nan=True
            )
    assert together["USFLUX"].isnan().tolist() == [shape == (5, 5) for shape in SHAPES]
    assert together["USFLUXL"][5].isnan()


def test_one_pixel_size_serves_all_and_gradients_flow() -> None:
    fields = [part.nan_to_num().requires_grad_() for part in patches()[:4]]
    found = measure_patches(fields, 3.6e7, names=["USFLUX", "TOTUSJH"])
    assert found["USFLUX"].shape == (4,)
    found["TOTUSJH"].sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in fields)


def test_no_patches_no_values() -> None:
    found = measure_patches([], [])
    assert set(found) == set(QUANTITIES)
    assert all(value.shape == (0,) for value in found.values())


def test_wrong_counts_are_refused() -> None:
    fields = patches()
    with pytest.raises(ValueError, match="masks has 1 entries for 7 patches"):
        measure_patches(fields, PIXELS, [None])
    with pytest.raises(ValueError, match="pixel_cm must be one number or 7"):
        measure_patches(fields, PIXELS[:3])
    with pytest.raises(ValueError, match="Br, Bt, Bp"):
        measure_patches([torch.ones(2, 20, 20)], 3.6e7)


@pytest.mark.gpu
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_gpu_gives_the_same(convention: str) -> None:
    host = measure_patches(patches(), PIXELS, convention=convention, **maps(patches()))
    fields = patches("cuda")
    device = measure_patches(fields, PIXELS, convention=convention, **maps(fields))
    for name in QUANTITIES:
        assert device[name].device.type == "cuda"
        torch.testing.assert_close(
            device[name].cpu(), host[name], rtol=1e-10, atol=1e-12, equal_nan=True
        )
    part = fields[0].clone().requires_grad_()
    measure(part[None], 3.6e7, names=["TOTUSJH"], convention=convention)["TOTUSJH"].backward()
    assert part.grad is not None
    assert part.grad.isfinite().all()
