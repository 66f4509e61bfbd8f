"""Losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from sunpipe.models.stylegan2 import Generator
from sunpipe.train.ema import ema_beta, update_ema
from sunpipe.train.losses import discriminator_loss, generator_loss, path_lengths, r1_penalty
from sunpipe.train.phases import mix_styles
from sunpipe.train_settings import ModelSettings

TINY = ModelSettings(z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8)


def test_losses_at_zero_logits() -> None:
    zero = torch.zeros(5)
    assert float(generator_loss(zero)) == pytest.approx(math.log(2))
    assert float(discriminator_loss(zero, zero)) == pytest.approx(2 * math.log(2))


def test_loss_directions() -> None:
    assert generator_loss(torch.full((3,), 5.0)) < generator_loss(torch.full((3,), -5.0))
    good = discriminator_loss(torch.full((3,), 5.0), torch.full((3,), -5.0))
    assert float(good) < 0.02


def test_r1_of_a_linear_discriminator_is_the_squared_norm() -> None:
    weight = torch.randn(2, 4, 4)
    penalty = r1_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.randn(6, 2, 4, 4))
    torch.testing.assert_close(penalty, weight.square().sum())


def test_path_length_of_a_linear_generator() -> None:
    """For image = A w in every layer, J^T y = A^T y / layers, known exactly."""
    matrix = torch.randn(2 * 4 * 4, 8)
    w_plus = torch.randn(3, 5, 8, requires_grad=True)
    noise = torch.randn(3, 2, 4, 4)
    lengths = path_lengths(
        lambda w: (w.mean(dim=1) @ matrix.t()).reshape(3, 2, 4, 4), w_plus, noise
    )
    gradient = (noise.flatten(1) / 4) @ matrix / 5
    torch.testing.assert_close(lengths, gradient.norm(dim=1))


def test_style_mixing_takes_late_layers_from_the_second_latent() -> None:
    torch.manual_seed(0)
    g = Generator(32, 1, TINY)
    z, z2 = torch.randn(64, 8), torch.randn(64, 8)
    first, second = g.mapping(z), g.mapping(z2)
    mixed = mix_styles(g, z, z2, 1.0)
    assert torch.equal(mixed[:, 0], first)
    assert torch.equal(mixed[:, -1], second)
    from_second = (mixed == second[:, None]).all(dim=2)
    assert bool((from_second[:, 1:] >= from_second[:, :-1]).all())  # one cutoff each
    assert torch.equal(mix_styles(g, z, z2, 0.0), g.broadcast(first))


def test_ema_half_life() -> None:
    steps = 1000
    assert ema_beta(10, 10**9, 10.0, 0.05) ** steps == pytest.approx(0.5)
    assert ema_beta(10, 100, 10.0, 0.05) == pytest.approx(0.5**2)  # ramp-up: half-life 5 images
    average, network = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    old, new = average.weight.clone(), network.weight.clone()
    update_ema(average, network, 0.75)
    torch.testing.assert_close(average.weight.data, 0.75 * old.data + 0.25 * new.data)
