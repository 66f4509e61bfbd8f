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


SMALL = ("--device", "cpu", "--batch", "2", "--channel-base", "128", "--warm", "0", "--timed", "1")


def test_ladder_runs_on_a_cpu_and_keeps_what_others_measured(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    rows = ["grouped fp32 NCHW", "bf16 from 64, R1 on a quarter"]
    key = "ladder 32, 1 channels, batch 2"
    before = {"command": "python ...", "date": "2026-01-01", "machine": {"gpu": "NVIDIA H200"}}
    measured = {"s_per_kimg": 4.2, "run": 0}
    known = {key: {"runs": [before], "rows": {"grouped tf32 NCHW": measured}},
             "sizes 1024, 1 channels": {"runs": [before], "rows": {"bf16": measured}}}  # fmt: skip
    out.write_text(json.dumps({"parts": known}))
    train_gpu.main(
        ["ladder", "--resolution", "32", *SMALL, "--out", str(out), "--rows", *rows]
    )  # fmt: skip
    document = json.loads(out.read_text())
    part = document["parts"][key]
    assert "machine" not in document
    assert document["parts"]["sizes 1024, 1 channels"] == known["sizes 1024, 1 channels"]
    assert part["rows"]["grouped tf32 NCHW"] == measured
    assert part["runs"][0] == before
    assert part["runs"][1]["machine"]["gpu"] is None
    assert part["runs"][1]["date"] > before["date"]
    assert all(part["rows"][name]["s_per_kimg"] > 0 for name in rows)
    assert all(part["rows"][name]["run"] == 1 for name in rows)
    assert part["rows"][rows[0]]["peak_bytes"] == "not measured"
    assert part["rows"]["scaled tf32 NCHW"] == "not measured"


def test_sizes_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    train_gpu.main(
        ["sizes", "--device", "cpu", "--resolutions", "16", "--channel-base", "64", "--warm", "0",
         "--timed", "1", "--memory-gib", "0.42", "--out", str(out)]
    )  # fmt: skip
    rows = json.loads(out.read_text())["parts"]["sizes 16, 1 channels"]["rows"]
    assert len(rows) == 3
    assert all(row["predicted_bytes"] <= 0.42 * 2**30 for row in rows.values())


def test_the_command_itself_is_timed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    train_gpu.main(["command", "--resolution", "32", *SMALL, "--ticks", "1", "--out", str(out)])
    part = json.loads(out.read_text())["parts"]["command 32, 1 channels, batch 2"]
    row = part["rows"][train_gpu.COMMAND]
    assert row["ticks"] == 1
    assert 0 < row["data_wait_s"] < 100 > row["s_per_kimg"] / 100 > 0
    assert part["runs"][0]["machine"]["gpu"] is None


def test_a_try_on_a_cpu_does_not_enter_the_published_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = train_gpu.OUT.read_bytes()
    for part in ("ladder", "sizes", "command"):
        with pytest.raises(SystemExit):
            train_gpu.main([part, *SMALL])
        assert "--device cpu needs --out" in capsys.readouterr().err
    assert train_gpu.OUT.read_bytes() == before


def test_each_row_rounds_as_a_training_of_its_precision() -> None:
    rows = train_gpu.rungs(64, 4, NARROW)
    assert {row.settings.compute.precision for row in rows} == {"fp32", "tf32", "bf16"}
    for row in rows:
        precision = row.settings.compute.precision
        assert row.tf32 == (precision != "fp32")
        assert precision in row.name
    assert len({row.name for row in rows}) == len(rows)


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
