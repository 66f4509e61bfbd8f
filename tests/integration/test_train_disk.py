"""A disk that fills up while a checkpoint of a training is written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from sunpipe import checkpoint
from sunpipe.files import sha256
from tests.conftest import REPO, run_json

TINY = REPO / "configs/tiny.toml"
LIMIT = 100_000  # bytes a file may have: logs fit, the networks of a checkpoint do not


def test_a_full_disk_ends_the_run_and_the_last_checkpoint_stays(tiny_copy: Path) -> None:
    settings = ("--config", str(TINY), "--set", "train.image_kimg=1000", "--set")
    run_json("train", *settings, "train.kimg=0.016", root=tiny_copy)
    folder = tiny_copy / "runs/00000-tiny/checkpoints"
    good = checkpoint.complete(folder)
    digests = {path: sha256(path) for path in good[-1].rglob("*.safetensors")}
    done = subprocess.run(
        [sys.executable, "-m", "sunpipe", "train", *settings, "train.kimg=0.64"], cwd=REPO,
        env={**os.environ, "SUNPIPE_ROOT": str(tiny_copy), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "File too large" in last
    assert ".safetensors" in last or "kimg-" in last
    assert "Traceback" not in done.stderr
    assert checkpoint.complete(folder) == good
    assert {path: sha256(path) for path in digests} == digests
    again = run_json("train", *settings, "train.kimg=0.032", root=tiny_copy)
    assert again["nimg"] == 32
