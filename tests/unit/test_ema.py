"""The average of G: half-life, buffers, and that no NaN ever reaches it."""

from __future__ import annotations

import pytest
import torch

from sunpipe.train.ema import ema_beta, update_ema


def test_half_life() -> None:
    steps = 1000
    assert ema_beta(10, 10**9, 10.0, 0.05) ** steps == pytest.approx(0.5)
    assert ema_beta(10, 100, 10.0, 0.05) == pytest.approx(0.5**2)  # ramp-up: half-life 5 images


def pair() -> tuple[torch.nn.BatchNorm1d, torch.nn.BatchNorm1d]:
    average, network = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        for number, one in enumerate((average, network)):
            one.weight.fill_(number + 1.0)
            assert one.running_mean is not None
            one.running_mean.fill_(10.0 * number)
    return average, network


def test_weights_are_averaged_and_buffers_copied() -> None:
    average, network = pair()
    update_ema(average, network, 0.75)
    assert average.weight.tolist() == [1.25] * 3
    assert average.running_mean is not None
    assert average.running_mean.tolist() == [10.0] * 3


@pytest.mark.parametrize("where", ["weight", "buffer"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_poisoned_network_leaves_the_average_alone(where: str, poison: float) -> None:
    average, network = pair()
    assert network.running_mean is not None
    with torch.no_grad():
        (network.weight if where == "weight" else network.running_mean)[1] = poison
    update_ema(average, network, 0.5)
    assert average.weight.tolist() == [1.0] * 3
    assert average.running_mean is not None
    assert average.running_mean.tolist() == [0.0] * 3
