"""Losses against closed forms, direct formulas and finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from sunpipe.train.losses import Kind, adversarial, needs_real, path_lengths, r1_penalty
from sunpipe.train_settings import ModelSettings

Tensor = torch.Tensor
TINY = ModelSettings(z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8)
KINDS: tuple[Kind, ...] = ("nonsaturating", "hinge", "relativistic_average", "relativistic_pair")


def alone(x: Tensor) -> Tensor:
    return x


def logits(count: int = 7, seed: int = 0) -> Tensor:
    return 2 * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def written_out(kind: str, r: list[float], g: list[float]) -> tuple[float, float]:
    """Losses of D and of G as sums of Python numbers, term by term as published."""
    n, f = len(r), softplus
    mean_r, mean_g = sum(r) / n, sum(g) / n
    pairs = list(zip(r, g, strict=True))
    return {
        "nonsaturating": (sum(f(-a) for a in r) / n + sum(f(b) for b in g) / n,
                          sum(f(-b) for b in g) / n),
        "hinge": (sum(max(0.0, 1 - a) for a in r) / n + sum(max(0.0, 1 + b) for b in g) / n,
                  -mean_g),
        "relativistic_average": (
            sum(f(-(a - mean_g)) for a in r) / n + sum(f(b - mean_r) for b in g) / n,
            sum(f(-(b - mean_r)) for b in g) / n + sum(f(a - mean_g) for a in r) / n),
        "relativistic_pair": (sum(f(-(a - b)) for a, b in pairs) / n,
                              sum(f(-(b - a)) for a, b in pairs) / n),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_losses_as_published(kind: Kind) -> None:
    real, fake = logits(), logits(seed=1)
    d_loss, g_loss = adversarial(kind, alone)
    wanted = written_out(kind, real.tolist(), fake.tolist())
    assert float(d_loss(real, fake)) == pytest.approx(wanted[0], rel=1e-14)
    assert float(g_loss(fake, real)) == pytest.approx(wanted[1], rel=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind: Kind) -> None:
    real, fake = logits().requires_grad_(True), logits(seed=1).requires_grad_(True)
    d_loss, g_loss = adversarial(kind, alone)
    assert torch.autograd.gradcheck(d_loss, (real, fake))
    assert torch.autograd.gradcheck(lambda g, r: g_loss(g, r) + 0 * r.sum(), (fake, real))


@pytest.mark.parametrize(
    ("kind", "loss_d", "loss_g"),
    [("nonsaturating", 2 * math.log(2), math.log(2)), ("hinge", 2.0, 0.0),
     ("relativistic_average", 2 * math.log(2), 2 * math.log(2)),
     ("relativistic_pair", math.log(2), math.log(2))],
)  # fmt: skip
def test_losses_of_a_d_that_knows_nothing(kind: Kind, loss_d: float, loss_g: float) -> None:
    zero = torch.zeros(5)
    d_loss, g_loss = adversarial(kind, alone)
    assert float(d_loss(zero, zero)) == pytest.approx(loss_d)
    assert float(g_loss(zero, zero)) == pytest.approx(loss_g)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_pull_the_right_way(kind: Kind) -> None:
    real, fake = logits().requires_grad_(True), logits(seed=1).requires_grad_(True)
    d_loss, g_loss = adversarial(kind, alone)
    up, down = torch.autograd.grad(d_loss(real, fake), (real, fake))
    assert bool((up <= 0).all() and (down >= 0).all() and (up < 0).any() and (down > 0).any())
    (lift,) = torch.autograd.grad(g_loss(fake, real), fake)
    assert bool((lift < 0).all())


def test_relativistic_losses_know_differences_only() -> None:
    real, fake = logits(), logits(seed=1)
    for kind in KINDS:
        d_loss, g_loss = adversarial(kind, alone)
        moved = d_loss(real + 3, fake + 3) - d_loss(real, fake)
        assert (abs(float(moved)) < 1e-12) == needs_real(kind)
        if needs_real(kind):  # G wants of D what D wants of itself, with the roles swapped
            torch.testing.assert_close(g_loss(fake, real), d_loss(fake, real))
        else:
            assert torch.equal(g_loss(fake, None), g_loss(fake, real))


def test_relativistic_average_asks_once_for_its_means() -> None:
    asked = []

    def mean(x: Tensor) -> Tensor:
        asked.append(x.tolist())
        return x + torch.tensor([10.0, 20.0])

    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])
    value = float(adversarial("relativistic_average", mean)[0](real, fake))
    assert asked == [[2.0, -1.5]]
    wanted = (softplus(18.5 - 1) + softplus(18.5 - 3)) / 2 + (softplus(-13) + softplus(-14)) / 2
    assert value == pytest.approx(wanted)


def test_losses_refuse_what_does_not_fit() -> None:
    for kind in ("relativistic_average", "relativistic_pair"):
        with pytest.raises(ValueError, match=r"needs D\(real\)"):
            adversarial(kind, alone)[1](logits(), None)
    with pytest.raises(ValueError, match=r"pairs each real image.*\(7,\) and \(1,\)"):
        adversarial("relativistic_pair", alone)[0](logits(), logits(1))
    with pytest.raises(ValueError, match="unknown loss 'wasserstein'"):
        adversarial("wasserstein", alone)  # type: ignore[arg-type]


def test_huge_logits_stay_finite() -> None:
    real, fake = torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4])
    for kind in KINDS:
        d_loss, g_loss = adversarial(kind, alone)
        assert bool(torch.isfinite(d_loss(real, fake)) & torch.isfinite(g_loss(fake, real)))


def test_r1_of_a_linear_discriminator_is_the_squared_norm() -> None:
    weight = torch.randn(2, 4, 4)
    penalty = r1_penalty(lambda x: (x * weight).sum(dim=(1, 2, 3)), torch.randn(6, 2, 4, 4))
    torch.testing.assert_close(penalty, weight.square().sum())


def test_r1_of_a_quadratic_discriminator_and_its_gradient() -> None:
    """For D(x) = a |x|^2 / 2 the penalty is a^2 mean |x|^2, and its derivative 2 a mean |x|^2."""
    images = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    a = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(lambda x: a * x.square().sum(dim=(1, 2, 3)) / 2, images)
    size = images.square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty, a.detach() ** 2 * size)
    (slope,) = torch.autograd.grad(penalty, a)
    torch.testing.assert_close(slope, 2 * a.detach() * size)


def test_r2_does_not_reach_the_generator() -> None:
    """At generated images the penalty trains D alone."""
    latent = torch.randn(4, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(lambda x: scale * x.pow(3).sum(dim=(1, 2, 3)), latent * 3)
    wanted = (2 * 3 * (3 * latent.detach()) ** 2).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty.detach(), wanted)
    by_d, by_g = torch.autograd.grad(penalty, (scale, latent), allow_unused=True)
    torch.testing.assert_close(by_d, wanted)  # the penalty is quadratic in scale = 2
    assert by_g is None


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
