"""Benchmarks of training: their formulations agree, and their code runs without a GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from benchmarks import scaling, train_gpu
from benchmarks.plain_layers import Formulation, formulation
from benchmarks.whole_step import step_flops
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.communication import Links, Traffic, communication_seconds
from sunpipe.train_settings import ModelSettings, TrainSettings, ZeroSettings

NARROW = ModelSettings(
    z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=16, mbstd_group=2
)


@pytest.mark.parametrize("name", ["grouped", "scaled"])
def test_formulations_compute_the_same(name: Formulation) -> None:
    torch.manual_seed(0)
    g, d = Generator(16, 1, NARROW).double(), Discriminator(16, 1, NARROW).double()
    for key, parameter in g.named_parameters():
        if key.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.3)
    z = torch.randn(2, 16).double()
    parameters = [*g.parameters(), *d.parameters()]

    def results() -> list[torch.Tensor]:
        image = g(z, noise="const")
        return [image, *torch.autograd.grad(d(image).sum(), parameters, allow_unused=True)]

    ours = results()
    with formulation(name):
        theirs = results()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_operations_of_a_step_are_those_of_its_convolutions() -> None:
    wide = ModelSettings(z_dim=16, w_dim=16, mapping_layers=2, channel_base=256, channel_max=32)
    narrow = TrainSettings(batch=2, model=NARROW)
    ratio = step_flops(64, 1, TrainSettings(batch=2, model=wide)) / step_flops(64, 1, narrow)
    assert 3 < ratio < 4.2  # twice the widths


def test_ladder_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    rows = ["grouped fp32 NCHW", "bf16 from 64, checkpoint conv"]
    train_gpu.main(
        ["ladder", "--device", "cpu", "--resolution", "32", "--batch", "2", "--channel-base", "128",
         "--warm", "0", "--timed", "1", "--out", str(out), "--rows", *rows]
    )  # fmt: skip
    found = json.loads(out.read_text())["parts"]["ladder 32, 1 channels, batch 2"]
    assert all(found[name]["s_per_kimg"] > 0 for name in rows)
    assert found[rows[0]]["peak_bytes"] == "not measured"
    assert found["scaled tf32 NCHW"] == "not measured"


def test_sizes_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    train_gpu.main(
        ["sizes", "--device", "cpu", "--resolutions", "16", "--channel-base", "64", "--warm", "0",
         "--timed", "1", "--memory-gib", "0.42", "--out", str(out)]
    )  # fmt: skip
    rows = json.loads(out.read_text())["parts"]["sizes 16, 1 channels"]
    assert len(rows) == 3
    assert all(row["predicted_bytes"] <= 0.42 * 2**30 for row in rows.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match="no CUDA device"):
        train_gpu.main(["ladder"])


def test_scaling_compares_with_the_model() -> None:
    """Numbers that the model itself gives come back as agreement."""
    stage0 = scaling.traffic(
        *scaling.parameters(scaling.SIZE, scaling.MODEL),
        TrainSettings(
            model=scaling.MODEL, pl_weight=0, r1_gamma=0,
            zero=ZeroSettings(stage=0, offload=False),
        ),
    )  # fmt: skip
    links = Links(inside=1e9, latency_inside=50e-6)
    messages = [
        communication_seconds(Traffic(size, 0), 2, 2, links) for size in scaling.MESSAGES
    ]  # fmt: skip
    spent = communication_seconds(stage0, 2, 2, links)
    many = {"step_s": 0.5 + spent, "in_collectives_s": spent, "reduced": stage0.reduced,
            "gathered": 0.0}  # fmt: skip
    found = scaling.compare({"step_s": 0.5}, many, messages, 2, 0)
    assert found["counted_over_formula"] == 1
    crowded = 0.5 * max(1.0, 2 / (os.cpu_count() or 1)) + spent
    assert found["predicted_step_s"] == pytest.approx(crowded)
    assert found["bandwidth_bytes_per_s"] == pytest.approx(1e9)
    assert scaling.model_table()["label"] == "model, not measured"
