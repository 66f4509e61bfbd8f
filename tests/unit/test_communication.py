"""Bytes and seconds between ranks: published volumes, the model's limits, the fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sunpipe.errors import UsageError
from sunpipe.train.communication import (
    HDR100_PER_NODE,
    NIC_PER_GPU_25,
    NIC_PER_GPU_50,
    Links,
    Traffic,
    communication_seconds,
    fit,
    scaling_table,
    step_time,
    traffic,
)
from sunpipe.train_settings import ComputeSettings, TrainSettings, ZeroSettings

G, D = 30_360_000, 29_010_000  # parameters at 1024 x 1024, one channel
MAIN = TrainSettings(pl_weight=0, r1_gamma=0)


def with_stage(stage: int, accumulate: int = 1, cfg: TrainSettings = MAIN) -> TrainSettings:
    return dataclasses.replace(
        cfg, zero=ZeroSettings(stage=stage, offload=False),  # type: ignore[arg-type]
        compute=ComputeSettings(accumulate=accumulate),
    )  # fmt: skip


def sent(what: Traffic, ranks: int) -> float:
    """Bytes that one rank sends, with rings."""
    return (2 * what.reduced + what.gathered) * (ranks - 1) / ranks


def test_volumes_are_those_of_rings() -> None:
    size = 4 * (G + D)
    for ranks in (2, 4, 64):
        unit = size * (ranks - 1) / ranks
        assert sent(traffic(G, D, with_stage(0)), ranks) == pytest.approx(2 * unit)
        for stage in (1, 2):
            assert sent(traffic(G, D, with_stage(stage)), ranks) == pytest.approx(3 * unit)
    # at many ranks 475 MB and 712 MB per GPU and iteration
    assert sent(traffic(G, D, with_stage(0)), 10_000) == pytest.approx(475e6, rel=1e-3)
    assert sent(traffic(G, D, with_stage(1)), 10_000) == pytest.approx(712e6, rel=1e-3)
    with pytest.raises(UsageError, match="not offered"):
        traffic(G, D, with_stage(3))


def test_passes_cost_traffic_from_stage_2_on() -> None:
    one, four = (sent(traffic(G, D, with_stage(1, n)), 8) for n in (1, 4))
    assert one == four
    one, four = (sent(traffic(G, D, with_stage(2, n)), 8) for n in (1, 4))
    assert four / one == pytest.approx((2 * 4 + 1) / 3)


def test_lazy_penalties_add_their_share_of_steps() -> None:
    lazy = with_stage(0, cfg=TrainSettings(pl_interval=4, r1_interval=16))
    assert traffic(G, D, lazy).reduced == pytest.approx(4 * (G * 5 / 4 + D * 17 / 16))


def test_penalties_of_every_iteration_are_no_steps() -> None:
    """They are part of the main phase's loss: one update, one reduction."""
    joint = with_stage(1, cfg=TrainSettings(pl_interval=1, r1_interval=1))
    assert traffic(G, D, joint) == traffic(G, D, with_stage(1))


@pytest.mark.parametrize(
    ("ms_per_image", "links", "efficiency"),
    [
        (117, HDR100_PER_NODE, {8: 0.957, 16: 0.939, 32: 0.930, 64: 0.925, 256: 0.918}),
        (117, NIC_PER_GPU_25, {8: 0.991, 16: 0.988, 32: 0.987, 64: 0.985, 256: 0.981}),
        (40, HDR100_PER_NODE, {8: 0.885, 16: 0.840, 32: 0.819, 64: 0.808, 256: 0.793}),
        (10, NIC_PER_GPU_50, {8: 0.929, 16: 0.914, 32: 0.905, 64: 0.896, 256: 0.857}),
    ],
)
def test_model_agrees_with_the_table_of_the_plan(
    ms_per_image: float, links: Links, efficiency: dict[int, float]
) -> None:
    """Four GPUs a node, four images a GPU, an all-reduce of G and one of D."""
    what = Traffic(4 * (G + D), 0, rings=4)
    rows = scaling_table(efficiency, 4, ms_per_image / 1000, 4, what, links)
    for row in rows:
        assert row.efficiency == pytest.approx(efficiency[row.world], abs=0.004)
        assert row.communication_share == pytest.approx(1 - row.efficiency)


def test_limits_of_the_model() -> None:
    what, links = Traffic(1e9, 0), Links()
    assert step_time(1, 4, 0.5, what, links) == 0.5
    inside = communication_seconds(what, 4, 4, links)
    assert inside == pytest.approx(2 * 3 * 10e-6 + 2 * 3 / 4 * 1e9 / 200e9)
    # many nodes: twice the buffer through each node's links, and hops that grow
    assert communication_seconds(what, 4 * 512, 4, links) == pytest.approx(
        inside + 2 * 511 * 10e-6 + 2 * 511 / 512 * 1e9 / 12.5e9
    )
    with pytest.raises(ValueError, match="fill"):
        communication_seconds(what, 6, 4, links)


def test_fit_finds_latency_and_bandwidth() -> None:
    alpha, bandwidth, world = 40e-6, 3e9, 4
    sizes = 4.0 ** np.arange(5, 14)
    seconds = 2 * (world - 1) * (alpha + sizes / world / bandwidth)
    noisy = seconds * np.random.default_rng(0).normal(1, 0.02, len(sizes))
    found = fit(sizes.tolist(), noisy.tolist(), world)
    assert found == pytest.approx((alpha, bandwidth), rel=0.05)
    with pytest.raises(ValueError, match="two"):
        fit([1e6], [1.0], 2)
    with pytest.raises(ValueError, match="longer"):
        fit([1e3, 1e6, 1e9], [1.0, 0.1, 0.001], 2)
