"""Random kills of a two-node training: every life continues where a whole checkpoint stands."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hpc import daemon
from sunpipe import checkpoint
from sunpipe.files import sha256
from tests.slurm.conftest import SMALL, Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("SUNPIPE_TEST_KILLS", "3"))  # 20 in the campaign of docs/training.md
QUEUED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")
FILES = ("G", "G_ema", "D", "zero/G", "zero/D")


def ranks_alive(slurm: Slurm) -> list[int]:
    """Processes of the training that runs on this cluster."""
    found = []
    for pid in daemon.leftovers(slurm.cluster.token):
        with suppress(OSError):  # it has just ended
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[2:3] == [b"train"]:
                found.append(pid)
    return found


def test_a_training_killed_at_random_ends_with_the_weights_of_an_undisturbed_one(
    slurm: Slurm, tiny_root: Path, tmp_path: Path
) -> None:
    chance = random.Random(4)
    roots = tmp_path / "killed", tmp_path / "straight"
    for root in roots:
        shutil.copytree(tiny_root / "shards", root / "shards")
    folder = roots[0] / "runs/00000-tiny/checkpoints"
    job = (*SMALL, "jobs/train_stylegan_1024.sh", "-c", "configs/tiny.toml", "--set",
           "train.checkpoint_kimg=0.016", "--set", "train.timeout_s=40", "--set")  # fmt: skip
    running, reached = "", ""
    for number in range(KILLS):
        if not running or slurm.show(running)["JobState"] not in QUEUED:
            running = slurm.sbatch(*job, "train.kimg=100", root=roots[0])
        slurm.until(f"ranks before kill {number}", lambda: len(ranks_alive(slurm)) == 2)
        if number % 2:  # every other life gets as far as a new checkpoint
            slurm.until("a new checkpoint", lambda old=reached: newest(folder) > old, 300)
        time.sleep(chance.uniform(0, 5))
        alive = ranks_alive(slurm)
        if chance.random() < 0.75:
            os.kill(chance.choice(alive), signal.SIGKILL)
        else:
            slurm.run("scancel", "--signal=USR2", running)
        slurm.until("their end", lambda old=alive: not set(old) & set(ranks_alive(slurm)))
        assert newest(folder) >= reached  # no kill loses a checkpoint
        reached = newest(folder)
    slurm.run("scancel", running)
    slurm.until("the end of the job", lambda: not ranks_alive(slurm))
    assert reached
    target = checkpoint.load_state(folder / reached)["nimg"] / 1000 + 0.016
    ends = [slurm.sbatch(*job, f"train.kimg={target}", root=root) for root in roots]
    assert set(slurm.wait(*ends, patience=400).values()) == {"COMPLETED"}
    final = [root / "runs/00000-tiny/checkpoints" / newest(folder) for root in roots]
    for name in FILES:
        assert sha256(final[0] / f"{name}.safetensors") == sha256(final[1] / f"{name}.safetensors")


def newest(folder: Path) -> str:
    """Name of the newest complete checkpoint."""
    return max((path.name for path in checkpoint.complete(folder)), default="")
