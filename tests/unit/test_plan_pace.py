"""Seconds on a named GPU: kernels counted exactly, limits by formula, published times met."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.plan_anchors import GPUS, ROWS, counted, seconds
from benchmarks.whole_step import step_flops
from sunpipe.errors import UsageError
from sunpipe.train.communication import HDR100_PER_NODE, communication_seconds, traffic
from sunpipe.train.gpus import CPU, KNOWN, Gpu, find_gpu, gpu_of_device
from sunpipe.train.meter import networks
from sunpipe.train.pace import pace
from sunpipe.train.roofline import PUBLISHED, Reached, by_limit, product_rate
from sunpipe.train.work import Kernels, Work, phase_works
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings, ZeroSettings
from tests.conftest import REPO

SMALL = TrainSettings(
    batch=4, model=ModelSettings(z_dim=16, w_dim=16, mapping_layers=2, channel_base=256,
                                 channel_max=16), diffaugment=(),
    zero=ZeroSettings(stage=0, offload=False),
)  # fmt: skip
ROUND = Gpu("round", 16, fp32=1, tf32=10, bf16=100, bandwidth=1000)
ALL = Reached(tensor=1, vector=1, memory=1, start_s=1e-6)


def kernels(work: Any) -> list[tuple[bool, float, float]]:
    with Kernels() as counter:
        work()
    return counter.found


def test_kernels_are_counted_with_what_they_compute_and_move() -> None:
    a, b = (torch.empty(size, device="meta") for size in ((8, 16), (16, 32)))
    assert kernels(lambda: a @ b) == [(False, 2 * 8 * 16 * 32, 4 * (8 * 16 + 16 * 32 + 8 * 32))]
    half = a.bfloat16()
    assert kernels(lambda: half @ b.bfloat16())[-1] == (
        True, 2 * 8 * 16 * 32, 2 * (8 * 16 + 16 * 32 + 8 * 32))  # fmt: skip
    assert kernels(lambda: a.view(-1).reshape(16, 8).t()[1:]) == []  # nothing runs
    row = torch.empty(1, 16, device="meta")
    assert kernels(lambda: a + row.expand(8, 16)) == [(False, 0.0, 4 * (128 + 16 + 128))]
    assert kernels(lambda: a.add_(1)) == [(False, 0.0, 2 * 4 * 128)]
    assert kernels(lambda: a.zero_()) == [(False, 0.0, 4 * 128)]


def test_a_convolution_goes_back_in_two_kernels() -> None:
    x = torch.empty(2, 8, 16, 16, device="meta", requires_grad=True)
    weight = torch.empty(8, 8, 3, 3, device="meta", requires_grad=True)
    forward = 2 * x.numel() * 8 * 9
    found = [one for one in kernels(lambda: F.conv2d(x, weight, padding=1).sum().backward())
             if one[1]]  # fmt: skip
    assert [flops for _, flops, _ in found] == [forward, forward, forward]


def test_all_phases_are_counted_like_the_flops_of_a_step() -> None:
    works = phase_works(8, 1, SMALL)
    total = sum(often * work.flops.sum() for often, work in works.values())
    assert total == pytest.approx(step_flops(8, 1, SMALL), rel=1e-12)
    assert [round(1 / often) for often, _ in works.values()] == [1, 4, 1, 16, 1]


def test_a_kernel_takes_the_longest_of_three_times() -> None:
    work = Work.of([(False, 3e12, 1e9), (False, 1e9, 2e12), (True, 4e14, 0), (False, 0, 8)])
    assert by_limit(work, ROUND, "fp32", ALL) == {
        "products": pytest.approx(3 + 4), "memory": pytest.approx(2), "starting": 1e-6}  # fmt: skip
    slow = Reached(tensor=0.5, vector=0.25, memory=0.5, start_s=1e-6)
    assert by_limit(work, ROUND, "fp32", slow)["products"] == pytest.approx(12 + 8)


def test_products_run_on_the_units_that_there_are() -> None:
    def rate(half: bool, precision: str, gpu: Gpu) -> float:
        return product_rate(half, gpu, precision, ALL) / 1e12

    assert [rate(half, kind, ROUND) for half, kind in
            ((False, "fp32"), (False, "tf32"), (False, "bf16"), (True, "bf16"))
            ] == [1, 10, 10, 100]  # fmt: skip
    assert rate(True, "bf16", KNOWN["v100"]) == KNOWN["v100"].fp32  # no units for bfloat16


def test_ranks_add_their_collectives_and_offload_its_way_to_the_host() -> None:
    alone = pace(8, 1, SMALL, ROUND)
    two = pace(8, 1, SMALL, ROUND, ranks=2, gpus_per_node=1)
    g, d = (sum(p.numel() for p in net.parameters())
            for net in networks(8, 1, SMALL.model, SMALL.compute))  # fmt: skip
    assert two.communication == communication_seconds(traffic(g, d, SMALL), 2, 1, HDR100_PER_NODE)
    assert alone.communication == alone.offload == 0
    assert alone.seconds_per_kimg == 250 * alone.iteration_s
    assert two.flops == pytest.approx(alone.flops / 2, rel=0.05)
    moved = TrainSettings(**{**vars(SMALL), "zero": ZeroSettings(stage=1, offload=True)})
    assert pace(8, 1, moved, ROUND).offload > 0
    assert pace(8, 1, moved, ROUND).update == 0
    cpu = dataclasses.replace(ROUND, name=CPU)  # the optimiser is in its memory anyway
    stays = pace(8, 1, moved, cpu)
    assert (stays.offload, stays.update) == (0, pace(8, 1, SMALL, cpu).update)
    block = TrainSettings(**{**vars(SMALL), "compute": ComputeSettings(
        checkpoint="block", checkpoint_from=8)})  # fmt: skip
    assert pace(8, 1, block, ROUND).flops > 1.1 * alone.flops  # computed again


def test_the_fit_meets_the_published_times() -> None:
    result = json.loads((REPO / "benchmarks/results/plan_anchors.json").read_text())
    for key, value in result["reached"].items():
        assert getattr(PUBLISHED, key) == pytest.approx(value, rel=0.01), key
    ratios = [row[gpu]["ratio_left_out"] for row in result["rows"].values() for gpu in GPUS]
    assert len(ratios) == 2 * len(ROWS) == 38
    assert 0.8 < min(ratios) < max(ratios) < 1.1
    assert np.sqrt(np.mean(np.square(np.log(ratios)))) < 0.08
    row = ROWS[2]  # counted again here
    works = counted(row)
    for gpu in GPUS:
        assert seconds(works, row.batch, gpu, PUBLISHED) == pytest.approx(
            result["rows"][row.name][gpu]["predicted_s_per_kimg"], rel=0.02)  # fmt: skip


def test_gpus_are_found_by_name_file_and_device(tmp_path: Path) -> None:
    assert find_gpu("H200") is KNOWN["h200"]
    with pytest.raises(UsageError, match=r"called 'gtx'; known: v100-16, .*h200.*NAME\.toml"):
        find_gpu("gtx")
    file = tmp_path / "mine.toml"
    file.write_text("memory_gib = 24\nfp32 = 30\ntf32 = 0\nbf16 = 0\nbandwidth = 1000\n")
    assert find_gpu(str(file)) == Gpu("mine", 24, 30, 0, 0, 1000, "", str(file))
    file.write_text("memory_gib = 24\nfp32 = 0\ntf32 = 0\nbf16 = 0\nspeed = 3\n")
    with pytest.raises(UsageError, match="speed: no such key; bandwidth is missing; fp32 must"):
        find_gpu(str(file))
    file.write_text(
        "memory_gib = true\nfp32 = inf\ntf32 = nan\nbf16 = 0\nbandwidth = 1\nname = 5\n"
    )
    with pytest.raises(UsageError, match=r"fp32 .*above 0; memory_gib .*; name must be text; tf32"):
        find_gpu(str(file))
    with pytest.raises(UsageError, match=r"no such file of a GPU's figures: .*other\.toml"):
        find_gpu(str(tmp_path / "other.toml"))
    names = {"Tesla V100-SXM2-16GB": "v100-16", "Tesla V100-SXM2-32GB": "v100",
             "NVIDIA A100-SXM4-40GB": "a100-40", "NVIDIA A100-SXM4-80GB": "a100",
             "NVIDIA H100 PCIe": "h100-pcie", "NVIDIA H100 80GB HBM3": "h100",
             "NVIDIA H200": "h200", "NVIDIA A40": "a40", "NVIDIA L40S": "l40s"}  # fmt: skip
    for device, name in names.items():
        found = gpu_of_device(device, 2**34)
        assert found is not None
        assert (found.name, found.memory_gib) == (name, 16)
    assert gpu_of_device("NVIDIA GeForce GTX 1080", 2**33) is None
