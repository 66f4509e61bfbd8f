"""Losses, augmentations, warm starts and faults of `sunpipe train`, each through the command."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sunpipe import checkpoint
from sunpipe.run import read_stats
from tests.conftest import REPO, run_cli, run_json

TINY = REPO / "configs/tiny.toml"
FILES = ("G", "D", "G_ema", "zero/G", "zero/D")


def train(root: Path, *settings: str, kimg: float = 0.032) -> dict[str, Any]:
    words = [word for key in (f"train.kimg={kimg}", *settings) for word in ("--set", key)]
    return run_json("train", "--config", TINY, *words, root=root)


def newest(root: Path, run: str = "00000-tiny") -> Path:
    path = checkpoint.newest(root / "runs" / run / "checkpoints", print)
    assert path is not None
    return path


@pytest.mark.parametrize(
    "settings",
    [
        ("train.loss=hinge", "train.model.g_architecture=residual", "train.model.conv_clamp=256"),
        ("train.loss=relativistic_average", "train.model.d_architecture=skip"),
        ("train.loss=relativistic_pair", "train.r2_gamma=0.1", "train.r1_interval=1",
         "train.pl_weight=0", "train.diffaugment=[]"),
        ("train.pl_interval=1", "train.compute.precision=bf16", "train.compute.bf16_from=8",
         "train.compute.checkpoint=block", "train.compute.checkpoint_from=8"),
        ("train.ada.target=0.6", "train.ada.kimg=0.1",
         'train.symmetries=["flip_horizontal","rotate90","reverse_polarity"]'),
        ("train.zero.stage=0", "train.lr_d=0.001", "train.compute.channels_last=false",
         "train.model.g_architecture=orig", "train.model.d_architecture=orig"),
    ],
)  # fmt: skip
def test_a_mode_trains_and_resumes_exactly(tiny_copy: Path, settings: tuple[str, ...]) -> None:
    row = train(tiny_copy, *settings, "train.checkpoint_kimg=0.016")
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    last = newest(tiny_copy)
    straight = {stem: load_file(last / f"{stem}.safetensors") for stem in FILES}
    shutil.rmtree(last)
    before = load_file(newest(tiny_copy) / "G.safetensors")
    train(tiny_copy, *settings, "train.checkpoint_kimg=0.016")
    assert newest(tiny_copy) == last
    for stem, theirs in straight.items():
        ours = load_file(last / f"{stem}.safetensors")
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stem
    assert any(not torch.equal(value, before[key]) for key, value in straight["G"].items())
    if "train.ada.target=0.6" in settings:
        rows = read_stats(tiny_copy / "runs/00000-tiny")
        state = checkpoint.load_state(newest(tiny_copy))
        assert "ada" in state
        assert all(0 <= row["ada_p"] <= 1 for row in rows)


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(tiny_copy: Path) -> None:
    train(tiny_copy, kimg=0.016)
    good = newest(tiny_copy)
    config = tiny_copy / "runs/00000-tiny/config.json"
    stored = json.loads(config.read_text())
    stored["train"]["lr_d"] = stored["train"]["lr_g"] = 1e30  # as if it had always been so
    config.write_text(json.dumps(stored))
    for policy, words in (("stop", "1 iterations"), ("skip", "iterations in a row")):
        done = run_cli(
            "train", "--config", TINY, "--set", "train.lr_d=1e30", "--set", "train.lr_g=1e30",
            "--set", "train.kimg=0.32", "--set", f"train.watch.nonfinite={policy}",
            "--set", "train.checkpoint_kimg=0.008", root=tiny_copy,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert "not finite" in done.stderr.splitlines()[-1], words
        assert "Traceback" not in done.stderr
        status = json.loads((tiny_copy / "runs/00000-tiny/status.json").read_text())
        assert status["state"] == "failed"
        for path in checkpoint.complete(tiny_copy / "runs/00000-tiny/checkpoints"):
            for stem in ("G", "D", "G_ema"):
                tensors = load_file(path / f"{stem}.safetensors")
                assert all(bool(torch.isfinite(value).all()) for value in tensors.values()), path
    assert good.exists()


def test_warm_start_at_twice_the_size_keeps_what_fits(tiny_copy: Path) -> None:
    train(tiny_copy, kimg=0.016)
    run_json("shard", "--config", TINY, "--set", "dataset=large", "--set", "shard.reduce=2",
             root=tiny_copy)  # fmt: skip
    large = ("dataset=large", "name=large", "train.warm.run=tiny", "train.warm.freeze_d=2")
    row = train(tiny_copy, *large, kimg=0.016)
    assert row["nimg"] == 16
    source = load_file(newest(tiny_copy) / "D.safetensors")
    grown = load_file(newest(tiny_copy, "00001-large") / "D.safetensors")
    shared = [key for key in source if key in grown and source[key].shape == grown[key].shape]
    assert len(shared) > 8
    log = (tiny_copy / "runs/00001-large/log.txt").read_text()
    assert "weights of tiny" in log
    again = train(tiny_copy, *large, kimg=0.032)  # a resume takes its own weights
    assert again["nimg"] == 32


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ('train.diffaugment=["color"]', 2, "color"),
        ("train.normalize.scale=[1,2]", 2, "train.normalize lists 2 channels"),
        ("train.warm.run=nobody", 1, "nobody"),
        ("train.warm.freeze_d=1", 2, "freeze_d"),
        ("train.zero.offload_parameters=true", 2, "stage = 3"),
        ("train.model.channel_min=99", 2, "channel_min=99"),
        ("train.ada.target=1.5", 2, "train.ada.target"),
        ("train.loss=wasserstein", 2, "train.loss"),
    ],
)
def test_bad_requests(tiny_copy: Path, override: str, code: int, words: str) -> None:
    done = run_cli("train", "--config", TINY, "--set", override, root=tiny_copy)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tiny_copy / "runs").exists()


def test_metrics_are_written_while_training(tiny_copy: Path) -> None:
    settings = ("train.metrics.kimg=0.016", "train.metrics.count=64", "train.metrics.batch=16")
    train(tiny_copy, *settings)
    rows = read_stats(tiny_copy / "runs/00000-tiny", "metric-generator")
    assert [row["nimg"] for row in rows] == [16, 32]
    assert all(math.isfinite(rows[-1][key]) for key in ("fd_random", "spectrum_db"))
