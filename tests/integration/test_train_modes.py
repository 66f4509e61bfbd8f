"""Losses, augmentations, warm starts and faults of `sunpipe train`, each through the command."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sunpipe import checkpoint
from sunpipe.config import load_config
from sunpipe.dist import discover
from sunpipe.errors import EXIT_USAGE, SunpipeError
from sunpipe.run import read_stats
from sunpipe.shards.reader import ShardReader
from sunpipe.train.begin import check
from sunpipe.train.sink_tensorboard import events
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
        ("train.zero.stage=0", "train.lr_d=0.001", "train.compute.channels_last=false",
         "train.model.g_architecture=orig", "train.model.d_architecture=orig"),
    ],
)  # fmt: skip
def test_a_mode_trains(tiny_copy: Path, settings: tuple[str, ...]) -> None:
    row = train(tiny_copy, *settings, kimg=0.016)
    assert row["nimg"] == 16
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


@pytest.mark.parametrize(
    "settings",
    [
        ("train.loss=relativistic_pair", "train.r2_gamma=0.1", "train.r1_interval=1",
         "train.pl_weight=0", "train.diffaugment=[]"),
        ("train.pl_interval=1", "train.compute.precision=bf16", "train.compute.bf16_from=8",
         "train.compute.checkpoint=block", "train.compute.checkpoint_from=8"),
        ("train.ada.target=0.6", "train.ada.kimg=0.1", "train.ada.interval=3",
         'train.symmetries=["flip_horizontal","rotate90","reverse_polarity"]'),
    ],
)  # fmt: skip
def test_a_mode_trains_and_resumes_exactly(tiny_copy: Path, settings: tuple[str, ...]) -> None:
    row = train(tiny_copy, *settings, "train.checkpoint_kimg=0.016")
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    last = newest(tiny_copy)
    straight = {stem: load_file(last / f"{stem}.safetensors") for stem in FILES}
    state = checkpoint.load_state(last)
    shutil.rmtree(last)
    before = load_file(newest(tiny_copy) / "G.safetensors")
    train(tiny_copy, *settings, "train.checkpoint_kimg=0.016")
    assert newest(tiny_copy) == last
    assert checkpoint.load_state(last) == state
    for stem, theirs in straight.items():
        ours = load_file(last / f"{stem}.safetensors")
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), stem
    assert any(not torch.equal(value, before[key]) for key, value in straight["G"].items())
    if "train.ada.target=0.6" in settings:
        # three iterations moved p, down to 0 or up; what the fourth saw waits for the next move
        assert state["ada"]["count"] == 8
        assert abs(state["ada"]["signs"]) <= 8


SPOILER = """
import sys
from sunpipe.train.trainer import Trainer
first, last = int(sys.argv.pop(1)), int(sys.argv.pop(1))
real = Trainer._real
def spoilt(self, stored):
    parts = real(self, stored)
    if first <= self.nimg < last:
        parts[0][0] = float("nan")
    return parts
Trainer._real = spoilt
from sunpipe.cli import main
main()
"""


def spoilt_training(
    root: Path, first: int, last: int, *settings: str
) -> subprocess.CompletedProcess[str]:
    """Train while the images from `first` to `last` shown hold NaN."""
    words = [word for key in settings for word in ("--set", f"train.{key}")]
    return subprocess.run(
        [sys.executable, "-c", SPOILER, str(first), str(last), "train", "--config", str(TINY),
         "--json", *words], cwd=REPO, text=True, capture_output=True, check=False,
        env={**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def all_finite(folder: Path) -> bool:
    return all(
        bool(torch.isfinite(value).all())
        for path in checkpoint.complete(folder) for stem in FILES
        for value in load_file(path / f"{stem}.safetensors").values()
    )  # fmt: skip


EACH = ("tick_kimg=0.008", "checkpoint_kimg=0.008", "r1_interval=2")


@pytest.mark.parametrize("stage", [0, 1])
def test_a_spoilt_batch_is_left_out(tiny_copy: Path, stage: int) -> None:
    done = spoilt_training(tiny_copy, 16, 32, "watch.nonfinite=skip", f"zero.stage={stage}",
                           "kimg=0.064", *EACH)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tiny_copy / "runs/00000-tiny"
    rows = {row["nimg"]: row for row in read_stats(run)}
    assert sorted(rows) == list(range(8, 72, 8))
    # D's main loss in both iterations, and R1 in the first of them
    assert (rows[24]["skipped"], rows[32]["skipped"], rows[40]["skipped"]) == (2, 1, 0)
    assert rows[24]["loss_D"] is None
    assert math.isfinite(rows[24]["loss_G"])
    assert math.isfinite(rows[40]["loss_D"])
    assert "2 steps were left out because the loss was not finite" in (run / "log.txt").read_text()
    kept = checkpoint.complete(run / "checkpoints")
    assert [path.name for path in kept] == [f"kimg-000000.{n:03d}" for n in (48, 56, 64)]
    assert all_finite(run / "checkpoints")


@pytest.mark.parametrize(
    ("policy", "words", "reached"), [("stop", "1 iterations in a row", 16),
                                     ("skip", "4 iterations in a row", 16)]
)  # fmt: skip
def test_a_training_that_diverges_stops_and_keeps_what_was_good(
    tiny_copy: Path, policy: str, words: str, reached: int
) -> None:
    done = spoilt_training(tiny_copy, 16, 10**9, f"watch.nonfinite={policy}", "kimg=0.64", *EACH)
    assert done.returncode == 1, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    run = tiny_copy / "runs/00000-tiny"
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    newest_one = checkpoint.complete(run / "checkpoints")[-1]
    assert newest_one.name == f"kimg-000000.{reached:03d}"
    assert all_finite(run / "checkpoints")


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
    ("changes", "words"),
    [
        (('train.diffaugment=["color"]',), "train.diffaugment: color is for intensities"),
        (('train.diffaugment=["cutout","color"]',), "color must come first"),
        (("train.normalize.scale=[1,2]",), "train.normalize lists 2 channels"),
        (("train.warm.freeze_d=1",), "freeze_d"),
        (("train.zero.stage=3",), "train.zero.stage = 3 is not offered"),
        (("train.model.channel_min=99",), "channel_min=99"),
        (("train.ada.target=1.5",), "train.ada.target"),
        (("train.loss=wasserstein",), "train.loss"),
        (("train.ada.target=0.6", "train.loss=relativistic_pair"), "common offset"),
    ],
)
def test_bad_requests(tiny_root: Path, changes: tuple[str, ...], words: str) -> None:
    reader = ShardReader(tiny_root / "shards/tiny", splits=("train",))
    with pytest.raises(SunpipeError) as caught:
        check(load_config(TINY, changes), discover({}), reader)
    assert caught.value.exit_code == EXIT_USAGE
    assert words in str(caught.value)


def test_a_source_that_is_not_there_is_refused_before_a_run_exists(tiny_copy: Path) -> None:
    done = run_cli("train", "--config", TINY, "--set", "train.warm.run=nobody", root=tiny_copy)
    assert done.returncode == 1
    assert "no run called 'nobody'" in done.stderr.splitlines()[-1]
    assert not (tiny_copy / "runs").exists()


def test_metrics_are_written_while_training(tiny_copy: Path) -> None:
    settings = ("train.metrics.kimg=0.016", "train.metrics.count=64", "train.metrics.batch=16")
    train(tiny_copy, *settings)
    run = tiny_copy / "runs/00000-tiny"
    rows = read_stats(run, "metric-generator")
    assert [row["nimg"] for row in rows] == [16, 32]
    assert all(math.isfinite(rows[-1][key]) for key in ("fd_random", "spectrum_db"))

    # as if it had been killed after the checkpoint at 32
    (run / "metric-generator.jsonl").write_text(json.dumps(rows[0]) + "\n")
    shutil.rmtree(run / "tensorboard")
    train(tiny_copy, *settings, kimg=0.04)
    again = read_stats(run, "metric-generator")
    assert [row["nimg"] for row in again] == [16, 32, 40]
    assert again[1]["fd_random"] == pytest.approx(rows[1]["fd_random"])
    (file,) = run.glob("tensorboard/*")
    drawn = [event.step for event in events(file)
             if any(value.tag == "fd_random" for value in event.summary.value)]  # fmt: skip
    assert drawn == [16, 32, 40]
