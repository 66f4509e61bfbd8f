"""Mirrors and quarter turns: where pixels go, which way arrows point, what physics keeps."""

from __future__ import annotations

import pytest
import torch

from sunpipe.physics import (
    flip_horizontal,
    flip_vertical,
    measure,
    reverse_polarity,
    rotate90,
)
from sunpipe.physics.quantities import MEASURABLE

Tensor = torch.Tensor
BR, BT, BP = range(3)
HELICITY = ("MEANALP", "MEANJZH", "MEANJZD")
ONE_SIDED = ("MEANPOT", "TOTPOT", "MEANSHR", "SHRGT45", "R_VALUE")


@pytest.fixture
def fields() -> Tensor:
    """Smooth random vector fields with both polarities, (2, 3, 24, 36), gauss."""
    torch.manual_seed(3)
    rough = torch.randn(2, 3, 30, 42, dtype=torch.float64)
    return 2000 * torch.nn.functional.avg_pool2d(rough, 7, stride=1)


def _names() -> list[str]:
    return [name for name in MEASURABLE if name != "TILT"]


def test_a_westward_arrow_turns_north() -> None:
    fields = torch.zeros(3, 4, 5)
    fields[BP, 0, 1] = 7.0  # at x = 1, y = 0, pointing west
    turned = rotate90(fields)
    assert turned.shape == (3, 5, 4)
    assert turned[BT, 1, 3] == -7.0  # at x = 3 = 4 - 1 - y, y = 1, pointing north
    assert turned.abs().sum() == 7.0


def test_mirrors_move_the_pixel_and_turn_the_arrow() -> None:
    fields = torch.zeros(3, 4, 5)
    fields[:, 0, 1] = torch.tensor([1.0, 2.0, 3.0])
    assert flip_horizontal(fields)[:, 0, 3].tolist() == [1.0, 2.0, -3.0]
    assert flip_vertical(fields)[:, 3, 1].tolist() == [1.0, -2.0, 3.0]
    assert reverse_polarity(fields)[:, 0, 1].tolist() == [-1.0, -2.0, -3.0]


def test_group_laws(fields: Tensor) -> None:
    for mirror in (flip_horizontal, flip_vertical, reverse_polarity):
        assert torch.equal(mirror(mirror(fields)), fields)
    assert torch.equal(rotate90(fields, 4), fields)
    assert torch.equal(rotate90(rotate90(fields, -1), 1), fields)
    assert torch.equal(rotate90(rotate90(fields)), flip_horizontal(flip_vertical(fields)))
    assert torch.equal(rotate90(fields, 3), rotate90(rotate90(rotate90(fields))))


@pytest.mark.parametrize("convention", ["physical", "jsoc"])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_changes_no_keyword(fields: Tensor, turns: int, convention: str) -> None:
    names = _names()
    if convention == "jsoc":  # its half-open Green window and its R box have a direction
        names = [name for name in names if name not in ONE_SIDED]
    mask = fields[:, BR].abs() > 100
    turned_mask = torch.rot90(mask, turns, dims=(-1, -2))
    before = measure(fields, 7e7, mask, names, convention)
    after = measure(rotate90(fields, turns), 7e7, turned_mask, names, convention)
    for name in names:
        torch.testing.assert_close(after[name], before[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mirror", [flip_horizontal, flip_vertical])
def test_a_mirror_changes_the_handedness_alone(fields: Tensor, mirror) -> None:  # type: ignore[no-untyped-def]
    mask = fields[:, BR].abs() > 100
    mirrored_mask = mirror(mask[:, None].expand(-1, 3, -1, -1).double())[:, 0] > 0
    names = [*_names(), "TILT"]
    before = measure(fields, 7e7, mask, names)
    after = measure(mirror(fields), 7e7, mirrored_mask, names)
    for name in names:
        sign = -1 if name in (*HELICITY, "TILT") else 1
        torch.testing.assert_close(after[name], sign * before[name], rtol=1e-9, atol=1e-9)


def test_polarity_reversal_negates_flux_and_current(fields: Tensor) -> None:
    mask = fields[:, BR].abs() > 100
    names = [*_names(), "TILT"]
    before = measure(fields, 7e7, mask, names)
    after = measure(reverse_polarity(fields), 7e7, mask, names)
    for name in names:
        sign = -1 if name in ("NETFLUX", "FLUXIMB", "MEANJZD") else 1
        torch.testing.assert_close(after[name], sign * before[name], rtol=1e-9, atol=1e-9)


def test_only_vectors_are_taken() -> None:
    with pytest.raises(ValueError, match="Br, Bt, Bp"):
        flip_horizontal(torch.zeros(2, 8, 8))
