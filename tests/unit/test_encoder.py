"""The encoder, SimSiam's loss and the collapse level."""

from __future__ import annotations

import pytest
import torch

from sunpipe.models.encoder import Encoder, SimSiam, stage_widths
from sunpipe.train.ssl_losses import collapse_level, simsiam_loss


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_any_power_of_two_from_16(resolution: int) -> None:
    encoder = Encoder(channels=1, resolution=resolution, width=4, dim=12).eval()
    assert encoder(torch.randn(2, 1, resolution, resolution)).shape == (2, 12)


@pytest.mark.parametrize("resolution", [0, 1, 8, 15, 48, 63, -16])
def test_other_sizes_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="powers of two from 16"):
        stage_widths(resolution, 8, 32)


def test_widths_double_up_to_dim() -> None:
    assert stage_widths(256, 16, 128) == [16, 32, 64, 128, 128]
    assert stage_widths(16, 16, 128) == [128]
    assert stage_widths(64, 64, 32) == [32, 32, 32]


def test_wrong_shape_is_refused_by_name() -> None:
    encoder = Encoder(3, 32, 4, 8)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        encoder(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        encoder(torch.zeros(2, 3, 64, 64))


def test_strength_of_the_field_is_not_normalised_away() -> None:
    torch.manual_seed(0)
    encoder = Encoder(3, 32, 8, 16).eval()
    weak = torch.randn(4, 3, 32, 32)
    ratio = encoder(3 * weak).norm(dim=1) / encoder(weak).norm(dim=1)
    assert (ratio > 1.5).all()


def test_gradient_is_stopped_at_the_projections() -> None:
    p1, p2, z1, z2 = (torch.randn(8, 5, requires_grad=True) for _ in range(4))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert z1.grad is None
    assert z2.grad is None
    assert p1.grad is not None
    assert p1.grad.abs().sum() > 0


def test_loss_is_the_symmetric_negative_cosine() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert simsiam_loss(a, b, b, a).item() == pytest.approx(-1)  # each predicts the other
    assert simsiam_loss(a, a, -a, a).item() == pytest.approx(0)
    assert simsiam_loss(a, b, -b, -a).item() == pytest.approx(1)


def test_collapse_level() -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(4096, 64, generator=generator)
    assert collapse_level(spread).item() < 0.01
    one = torch.randn(1, 64, generator=generator)
    assert collapse_level(one.expand(256, 64)).item() == pytest.approx(1, abs=1e-4)
    assert collapse_level(one + 0.01 * spread).item() > 0.9
    # Scale does not matter, direction does.
    assert collapse_level(one * torch.rand(256, 1, generator=generator)).item() > 0.99


def test_simsiam_gives_predictions_and_projections_of_both_views() -> None:
    model = SimSiam(Encoder(3, 16, 4, 8), hidden=12)
    parts = model(torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16))
    assert [part.shape for part in parts] == [(4, 12)] * 4
