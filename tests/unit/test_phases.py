"""Phases: whole losses, and penalties that are due always or now and then."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.begin import layout_notes
from sunpipe.train.chance import Chance
from sunpipe.train.losses import r1_penalty
from sunpipe.train.phases import (
    DiscriminatorPhases,
    GeneratorPhases,
    lazy_penalty,
    lazy_ratio,
    mix_styles,
    touch,
)
from sunpipe.train.watch import diversity
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings

TINY = ModelSettings(z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
CPU = torch.device("cpu")


def settings(**changes: object) -> TrainSettings:
    return dataclasses.replace(TrainSettings(model=TINY, diffaugment=()), **changes)  # type: ignore[arg-type]


@pytest.fixture
def networks() -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    g, d = Generator(16, 2, TINY), Discriminator(16, 2, TINY)
    for name, parameter in g.named_parameters():
        if name.endswith("strength"):
            torch.nn.init.constant_(parameter, 0.3)
    return g, d


def chance(purpose: str = "G", count: int = 4) -> Chance:
    return Chance.of(3, 64, purpose, range(count), CPU)


def test_style_mixing_takes_late_layers_from_the_second_latent(
    networks: tuple[Generator, Discriminator],
) -> None:
    g, _ = networks
    many = chance(count=64)
    first, second = (g.mapping(many.normal(name, 8)) for name in ("z", "z2"))
    mixed = mix_styles(g, many, 1.0)
    assert torch.equal(mixed[:, 0], first)
    assert torch.equal(mixed[:, -1], second)
    from_second = (mixed == second[:, None]).all(dim=2)
    assert bool((from_second[:, 1:] >= from_second[:, :-1]).all())  # one cutoff each
    assert len(from_second.sum(dim=1).unique()) == g.num_ws - 1  # every cutoff occurs
    assert torch.equal(mix_styles(g, many, 0.0), g.broadcast(first))
    half = (mix_styles(g, many, 0.5) == first[:, None]).all(dim=(1, 2)).float().mean()
    assert 0.3 < float(half) < 0.7


def test_a_lazy_penalty_costs_a_second_step_of_adam() -> None:
    assert lazy_ratio(10.0, 16) == pytest.approx(16 / 17)
    assert lazy_ratio(10.0, 1) == 1.0  # part of the main phase: one step
    assert lazy_ratio(0.0, 16) == 1.0
    assert [lazy_penalty(*pair) for pair in ((1, 16), (1, 1), (0, 16))] == [True, False, False]


def test_a_penalty_of_every_step_is_in_the_main_phase(
    networks: tuple[Generator, Discriminator],
) -> None:
    _, d = networks
    real, fake = torch.randn(2, 4, 2, 16, 16)
    lazy = DiscriminatorPhases(d, settings(r1_gamma=3.0, r2_gamma=5.0, r1_interval=16))
    always = DiscriminatorPhases(d, settings(r1_gamma=3.0, r2_gamma=5.0, r1_interval=1))
    main, _ = lazy("main", real, fake, chance("D"))
    both, seen = always("main", real, fake, chance("D"))
    expected = 3.0 / 2 * r1_penalty(d, real) + 5.0 / 2 * r1_penalty(d, fake)
    torch.testing.assert_close(both - main, expected, rtol=1e-4, atol=1e-5)
    assert seen["r1_penalty"] > 0
    penalty, _ = lazy("penalty", real, fake, chance("D"))
    torch.testing.assert_close(penalty, 16 * expected, rtol=1e-4, atol=1e-4)


def test_losses_of_parts_average_to_the_loss_of_the_whole(
    networks: tuple[Generator, Discriminator],
) -> None:
    """Chance and the groups of the minibatch statistic belong to samples, not to batches."""
    g, d = networks
    t = settings(diffaugment=("translation", "cutout"))
    d_phases, g_phases = DiscriminatorPhases(d, t), GeneratorPhases(g, d, t)
    real = torch.randn(8, 2, 16, 16)
    fake = torch.randn(8, 2, 16, 16)
    whole = chance("D", 8)
    for phases, args in (
        (d_phases, lambda c, m: (real[m], fake[m], c)),
        (g_phases, lambda c, m: (c,)),
    ):
        every, _ = phases("main", *args(whole, slice(None)))
        parts = [phases("main", *args(whole.part(m, 2), slice(m, None, 2)))[0] for m in range(2)]
        torch.testing.assert_close(torch.stack(parts).mean(), every, rtol=1e-6, atol=1e-6)


def test_path_length_penalty_is_the_distance_from_the_running_mean(
    networks: tuple[Generator, Discriminator],
) -> None:
    g, d = networks
    phases = GeneratorPhases(g, d, settings(pl_weight=2.0, pl_interval=4, pl_decay=0.25))
    phases.pl_mean.fill_(5.0)
    loss, seen = phases("path", chance("path", 2))
    torch.testing.assert_close(loss, seen["pl_penalty"] * 2.0 * 4)
    lately = (seen["pl_mean"] - 5.0 * 0.75) / 0.25
    assert 0 < float(lately) < 5
    loss.backward()
    gradients = [p.grad for p in g.parameters()]
    assert all(gradient is not None for gradient in gradients)


@pytest.mark.parametrize("loss", ["relativistic_average", "relativistic_pair"])
def test_a_relativistic_generator_loss_moves_g_alone(
    networks: tuple[Generator, Discriminator], loss: str
) -> None:
    g, d = networks
    phases = GeneratorPhases(g, d, settings(loss=loss))
    real = torch.randn(4, 2, 16, 16)
    d.requires_grad_(False)
    value, _ = phases("main", chance(), real)
    value.backward()
    assert any(bool((p.grad != 0).any()) for p in g.parameters() if p.grad is not None)
    assert all(p.grad is None for p in d.parameters())
    other, _ = phases("main", chance(), real + 1.0)
    assert not torch.isclose(other, value, atol=1e-7)  # it does look at real images


def test_touch_reaches_what_is_trained() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    touch(layer).backward()
    assert layer.weight.grad is not None
    assert bool((layer.weight.grad == 0).all())
    assert layer.bias.grad is None


def test_penalties_on_a_part_of_the_batch(networks: tuple[Generator, Discriminator]) -> None:
    _, d = networks
    real, fake = torch.randn(2, 4, 2, 16, 16)
    t = settings(r1_gamma=3.0, r2_gamma=5.0, r1_interval=1, r1_batch_shrink=2)
    phases = DiscriminatorPhases(d, t)
    assert [phases.penalty_count(batch) for batch in (1, 4, 8)] == [1, 2, 4]
    main, _ = DiscriminatorPhases(d, settings(r1_gamma=0.0))("main", real, fake, chance("D"))
    both, _ = phases("main", real, fake, chance("D"))
    expected = 1.5 * r1_penalty(d, real[:2]) + 2.5 * r1_penalty(d, fake[:2])
    torch.testing.assert_close(both - main, expected, rtol=1e-4, atol=1e-5)


def test_one_repeated_image_is_no_diversity(networks: tuple[Generator, Discriminator]) -> None:
    _, d = networks
    real = torch.randn(16, 2, 16, 16)
    same = real[:1].expand(16, -1, -1, -1)
    with torch.no_grad():
        features = [d.features(images)[1] for images in (same, real.flip(0), real)]
    assert float(diversity(features[0], features[2], lambda x: x)) < 0.05
    assert float(diversity(features[1], features[2], lambda x: x)) == pytest.approx(1.0, abs=0.05)


def test_what_depends_on_the_layout_is_said() -> None:
    assert layout_notes(settings(), 8) == []
    few = layout_notes(settings(r1_batch_shrink=4), 8)
    assert len(few) == 1
    assert "a penalty holds 2 samples" in few[0]
    notes = layout_notes(
        settings(loss="relativistic_average", compute=ComputeSettings(accumulate=2)), 3
    )
    assert len(notes) == 3
    assert "bars of relativistic_average" in notes[2]
