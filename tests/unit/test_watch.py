"""The watch: spread of features in closed form, and a generator that really collapses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sunpipe.train.losses import nonsaturating_d, nonsaturating_g
from sunpipe.train.watch import diversity, feature_moments, spread_ratio, warnings
from sunpipe.train_settings import WatchSettings

Tensor = torch.Tensor
SETTINGS = WatchSettings()
WELL = {"nimg": 64, "loss_G": 0.7, "loss_D": 1.3, "logits_real": 0.5, "logits_fake": -0.4,
        "diversity": 0.9, "skipped": 0, "ada_p": 0.3, "pl_mean": 0.2}  # fmt: skip


def alone(x: Tensor) -> Tensor:
    return x


def test_diversity_is_a_ratio_of_standard_deviations() -> None:
    fake, real = torch.randn(12, 5) * 3 + 100, torch.randn(8, 5) - 7
    wanted = fake.double().std(0, correction=0).mean() / real.double().std(0, correction=0).mean()
    torch.testing.assert_close(diversity(fake, real, alone), wanted)
    torch.testing.assert_close(diversity(7 * real + 2, real, alone), torch.tensor(7.0).double())


def test_diversity_is_of_the_samples_of_all_ranks() -> None:
    """Two ranks, each with equal images of its own, are diverse together."""
    parts = [torch.full((4, 3), 1.0), torch.full((4, 3), 2.0)]
    real = torch.randn(4, 3)
    stacked: list[Tensor] = []
    for part in parts:
        diversity(part, real, lambda x: stacked.append(x) or x)  # type: ignore[func-returns-value]
    found = diversity(parts[0], real, lambda x: torch.stack(stacked).mean(dim=0))
    wanted = torch.cat(parts).double().std(0, correction=0).mean() / real.double().std(
        0, correction=0
    ).mean()  # fmt: skip
    torch.testing.assert_close(found, wanted)


def test_diversity_of_passes_of_one_image_each() -> None:
    fake, real = torch.randn(12, 5) * 3, torch.randn(12, 5)
    passes = [feature_moments(fake[[k]], real[[k]]) for k in range(12)]
    found = spread_ratio(torch.stack(passes).mean(dim=0))
    torch.testing.assert_close(found, diversity(fake, real, alone))
    assert math.isnan(float(spread_ratio(passes[0])))


def test_equal_images_have_no_spread_whatever_their_size() -> None:
    real = torch.randn(64, 32)
    for size in (1e-3, 1.0, 1e6):
        equal = (size * torch.randn(32, dtype=torch.float64)).expand(59, -1)
        assert float(diversity(equal, real, alone)) == 0.0
        assert math.isnan(float(diversity(real, equal, alone)))
    far = real.double() * 1e-5 + 1.0  # and a small one is not lost
    assert float(diversity(far, real, alone)) == pytest.approx(1e-5, rel=1e-4)


class ToyD(nn.Module):
    """Points of the plane to a logit and to features, as the big one does with images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32))
        self.out = nn.Linear(32, 1)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.leaky_relu(self.body(x), 0.2)
        return self.out(features).squeeze(1), features


def ring(count: int) -> Tensor:
    """Eight narrow modes on a circle of radius 2."""
    angle = torch.randint(8, (count,)) * (math.pi / 4)
    return 2 * torch.stack((angle.cos(), angle.sin()), dim=1) + 0.05 * torch.randn(count, 2)


def watched(d: ToyD, g: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        logits_real, real = d.features(ring(256))
        logits_fake, fake = d.features(g(torch.randn(256, 4)))
    return {"logits_real": float(logits_real.mean()), "logits_fake": float(logits_fake.mean()),
            "diversity": float(diversity(fake, real, alone))}  # fmt: skip


def test_a_generator_that_collapses_is_noticed() -> None:
    """G trained against a D that no longer learns runs to one point, D's favourite."""
    torch.manual_seed(0)
    d, g = ToyD(), nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    with torch.no_grad():
        g[2].weight *= 6  # as wide as the ring
    adam = torch.optim.Adam(d.parameters(), lr=3e-3)
    for _ in range(150):
        adam.zero_grad()
        fake = d.features(g(torch.randn(64, 4)).detach())[0]
        nonsaturating_d(d.features(ring(64))[0], fake).backward()
        adam.step()
    before = watched(d, g)
    assert before["diversity"] > 0.5
    assert warnings(before, SETTINGS) == []
    adam = torch.optim.Adam(g.parameters(), lr=1e-2)
    for _ in range(200):
        adam.zero_grad()
        z = torch.randn(64, 4)
        points = 2.5 * torch.tanh(g(z) / 2.5)  # on the canvas, as images are in their range
        nonsaturating_g(d.features(points)[0]).backward()
        adam.step()
    after = watched(d, lambda z: 2.5 * torch.tanh(g(z) / 2.5))  # type: ignore[arg-type]
    assert after["diversity"] < 0.2
    assert any("collapsing" in line for line in warnings(after, SETTINGS))


def test_a_discriminator_that_wins_is_noticed() -> None:
    """Trained on against points far away from the ring, D drives its logits apart."""
    torch.manual_seed(0)
    d = ToyD()
    adam = torch.optim.Adam(d.parameters(), lr=3e-2)

    def far(z: Tensor) -> Tensor:
        return 0.5 * z[:, :2] + 4.0

    seen = []
    for step in range(300):
        adam.zero_grad()
        nonsaturating_d(d.features(ring(64))[0], d.features(far(torch.randn(64, 4)))[0]).backward()
        adam.step()
        if step in (0, 299):
            seen.append(warnings(watched(d, far), SETTINGS))  # type: ignore[arg-type]
    assert seen[0] == []
    assert len(seen[1]) == 1
    assert "D tells real from generated too easily" in seen[1][0]


def test_a_healthy_tick_and_one_that_knows_little() -> None:
    assert warnings(WELL, SETTINGS) == []
    assert warnings({}, SETTINGS) == []
    assert warnings({"logits_real": 50.0, "ada_p": None, "diversity": None}, SETTINGS) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logits_real": 12.0, "logits_fake": -8.5}, ["too easily", "+12 for real", "-8.5 for"]),
        ({"logits_real": -15.0, "logits_fake": 8.5}, ["takes generated images for real"]),
        ({"diversity": 0.19}, ["0.19 times", "less than diversity = 0.2"]),
        ({"diversity": float("nan")}, ["do not vary over real images"]),
        ({"skipped": 1}, ["1 step was left out"]),
        ({"skipped": 3}, ["3 steps were left out"]),
        ({"ada_p": 1.0}, ["ADA's p has reached 1"]),
        ({"pl_mean": float("inf"), "loss_G": float("nan")}, ["not finite: loss_G, pl_mean"]),
    ],
)
def test_one_sentence_each(change: dict[str, float], words: list[str]) -> None:
    (line,) = warnings({**WELL, **change}, SETTINGS)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "change",
    [{"logits_real": 9.9, "logits_fake": -10.0}, {"diversity": 0.2}, {"ada_p": 0.999},
     {"diversity": 3.0}],
)  # fmt: skip
def test_thresholds_belong_to_the_healthy(change: dict[str, float]) -> None:
    assert warnings({**WELL, **change}, SETTINGS) == []


def test_thresholds_are_the_settings() -> None:
    strict = WatchSettings(logit_gap=0.5, diversity=0.95)
    found = warnings(WELL, strict)
    assert ["too easily" in found[0], "collapsing" in found[1]] == [True, True]


def test_all_that_is_wrong_is_said() -> None:
    row = {**WELL, "logits_real": float("inf"), "diversity": 0.0, "skipped": 2, "ada_p": 1.0}
    found = warnings(row, SETTINGS)
    assert len(found) == 5
    assert "not finite: logits_real" in found[0]
