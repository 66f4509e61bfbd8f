"""Chance belongs to samples: the same numbers however a batch is shared out."""

from __future__ import annotations

import pytest
import torch

from sunpipe.models.noise import SampleNoise, mix
from sunpipe.train.chance import Chance

CPU = torch.device("cpu")


def draws(chance: Chance) -> list[torch.Tensor]:
    return [
        chance.normal("z", 7), chance.uniform("mix"), chance.integers("cutoff", 1, 9),
        chance.maps("target", 2, 4, 4), chance.noise("layers")(3, 8, CPU),
    ]  # fmt: skip


def test_a_batch_is_the_same_at_any_number_of_ranks_and_micro_batches() -> None:
    whole = draws(Chance.of(5, 320, "G", range(12), CPU))
    for world in (2, 3, 4):
        for rank in range(world):
            part = draws(Chance.of(5, 320, "G", range(rank, 12, world), CPU))
            for ours, every in zip(part, whole, strict=True):
                assert torch.equal(ours, every[rank::world])
    local = Chance.of(5, 320, "G", range(1, 12, 2), CPU)
    for ours, every in zip(draws(local.part(2, 3)), whole, strict=True):
        assert torch.equal(ours, every[1::2][2::3])
    assert torch.equal(local.first(2).normal("z", 7), whole[0][1::2][:2])


@pytest.mark.parametrize(
    "other", [(6, 320, "G", 0), (5, 352, "G", 0), (5, 320, "D", 0), (5, 320, "G", 1)]
)
def test_any_change_of_what_it_depends_on_changes_every_number(
    other: tuple[int, int, str, int],
) -> None:
    ours = Chance.of(5, 320, "G", [0], CPU)
    theirs = Chance.of(*other[:3], [other[3]], CPU)
    assert not torch.isclose(ours.normal("z", 50), theirs.normal("z", 50)).any()
    assert not torch.isclose(ours.normal("z", 50), ours.normal("y", 50)).any()
    assert not torch.isclose(ours.normal("z", 50), ours.child("real").normal("z", 50)).any()


def test_distributions() -> None:
    chance = Chance.of(0, 0, "test", range(20000), CPU)
    z = chance.normal("z", 3)
    assert abs(float(z.mean())) < 0.02
    assert float(z.std()) == pytest.approx(1.0, abs=0.01)
    assert abs(float(torch.corrcoef(torch.cat((z[:-1].T, z[1:].T))).triu(1).abs().max())) < 0.03
    u = chance.uniform("u")
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    counts = torch.histc(u, 20, 0, 1) / 1000
    assert float((counts - 1).abs().max()) < 0.15
    whole = chance.integers("i", -3, 4)
    assert torch.bincount(whole + 3, minlength=7).min() > 2600
    assert (int(whole.min()), int(whole.max())) == (-3, 3)


def test_noise_of_a_layer_can_be_drawn_again() -> None:
    noise = SampleNoise((1, 2))
    first = noise(4, 16, CPU)
    assert first.shape == (2, 1, 16, 16)
    assert torch.equal(first, noise(4, 16, CPU))
    assert not torch.equal(first, noise(5, 16, CPU))
    assert len({mix(seed, word) for seed in range(100) for word in range(100)}) == 10000
