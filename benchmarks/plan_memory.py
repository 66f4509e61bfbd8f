"""The memory that ``sunpipe plan`` predicts against that of the training itself, on this CPU.

Each configuration runs in a process of its own: shards are made up, `Trainer` is
made as ``sunpipe train`` makes it (DeepSpeed's engines, ZeRO, the average of G), and
whole iterations are run in which every phase is due: G main, path length, D main,
R1, their updates and the average. The highest resident size since the second
iteration began (``VmHWM``, reset through ``/proc/self/clear_refs``), less that of the
process before the trainer was made, stands beside the ledger. Before that a training
with narrow networks has run in the same process: code, threads and scratch space of
the libraries belong to the process. glibc returns freed blocks at once
(``MALLOC_MMAP_THRESHOLD_``), so that the resident size follows what is allocated.

    python benchmarks/plan_memory.py --out benchmarks/results/plan_memory.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from benchmarks.machine import document, write  # noqa: E402
from benchmarks.resident import reset, status  # noqa: E402
from benchmarks.train_command import make_dataset  # noqa: E402
from sunpipe import dist  # noqa: E402
from sunpipe.config import load_config  # noqa: E402
from sunpipe.settings import Config  # noqa: E402
from sunpipe.shards.reader import ShardReader  # noqa: E402
from sunpipe.train.engine import initialize  # noqa: E402
from sunpipe.train.ledger import ledger  # noqa: E402
from sunpipe.train.trainer import Trainer  # noqa: E402

BASE = {"model.channel_base": 4096, "model.channel_max": 128, "model.z_dim": 128,
        "model.w_dim": 128, "zero.stage": 0, "zero.offload": False}  # fmt: skip
NARROW = {"model.channel_base": 64, "model.channel_max": 8, "model.z_dim": 8, "model.w_dim": 8,
          "model.mapping_layers": 2}  # fmt: skip
# resolution, channels, what of [train] differs from BASE
CASES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "32, batch 32, 3 channels": (32, 3, {"batch": 32}),
    "64, batch 16": (64, 1, {"batch": 16}),
    "64, batch 16, no penalties": (64, 1, {"batch": 16, "r1_gamma": 0, "pl_weight": 0}),
    "64, batch 16, R1 in every iteration": (64, 1, {"batch": 16, "r1_interval": 1}),
    "64, batch 4, ZeRO-1, 34 M parameters": (
        64, 1, {"batch": 4, "zero.stage": 1, "model.channel_base": 32768,
                "model.channel_max": 512}),
    "64, batch 4, ZeRO-0, 34 M parameters": (
        64, 1, {"batch": 4, "model.channel_base": 32768, "model.channel_max": 512}),
    "128, batch 8": (128, 1, {"batch": 8}),
    "128, batch 8, 3 channels, 4 passes": (128, 3, {"batch": 8, "compute.accumulate": 4}),
    "128, batch 8, bf16, ZeRO-1": (
        128, 1, {"batch": 8, "compute.precision": "bf16", "zero.stage": 1}),
    "256, batch 4": (256, 1, {"batch": 4}),
    "256, batch 4, checkpoint block": (256, 1, {"batch": 4, "compute.checkpoint": "block"}),
    "256, batch 4, checkpoint conv": (256, 1, {"batch": 4, "compute.checkpoint": "conv"}),
    "256, batch 4, no R1, checkpoint conv": (
        256, 1, {"batch": 4, "compute.checkpoint": "conv", "r1_gamma": 0}),
    "256, batch 4, no R1": (256, 1, {"batch": 4, "r1_gamma": 0}),
}  # fmt: skip


def config(name: str, changes: dict[str, Any]) -> Config:
    """Configuration of a training on made-up shards called `name`."""
    words = [f"train.{key}={json.dumps(value)}" for key, value in {**BASE, **changes}.items()]
    return load_config(None, [f"name={name}", f"dataset={name}", *words])


def _train(cfg: Config, folder: Path, ranks: dist.Ranks, resolution: int, channels: int) -> int:
    """Highest resident bytes of an iteration with all phases, the networks' states included."""
    if not folder.exists():
        make_dataset(folder, 4, channels, resolution)
    trainer = Trainer(cfg, ShardReader(folder), ranks, torch.device("cpu"), None, None, {})
    stored = torch.zeros(cfg.train.batch, channels, resolution, resolution, dtype=torch.int16)
    for _ in range(2):
        trainer.nimg = 0  # where every penalty is due
        reset()
        trainer.iterate(stored)
    return status("VmHWM")


def child(resolution: int, channels: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Predicted and measured bytes; run in a process of its own."""
    torch.set_num_threads(1)
    ranks = dist.discover()
    initialize(ranks)
    cfg = config("measured", changes)
    with tempfile.TemporaryDirectory() as root:
        small = config("small", {**changes, **NARROW})
        _train(small, Path(root) / "small", ranks, 64, channels)
        predicted = ledger(resolution, channels, cfg.train, device="cpu")
        before = reset()
        measured = _train(cfg, Path(root) / "measured", ranks, resolution, channels) - before
    return {"predicted_bytes": predicted.peak_bytes, "peak_phase": predicted.peak_phase,
            "parts": predicted.parts, "measured_bytes": measured, "process_bytes": before,
            "predicted_over_measured": predicted.peak_bytes / measured}  # fmt: skip


def measure(resolution: int, channels: int, changes: dict[str, Any]) -> dict[str, Any]:
    """`child` in a process whose allocator returns memory at once."""
    quiet = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "",
             "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # fmt: skip
    case = json.dumps([resolution, channels, changes])
    done = subprocess.run(
        [sys.executable, __file__, "--child", case], capture_output=True, text=True,
        env={**os.environ, **quiet}, cwd=REPO, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{case} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure every case and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", type=json.loads)
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child)))
        return
    cases = {}
    for name in arguments.cases:
        cases[name] = {"changes": CASES[name][2], **measure(*CASES[name])}
        row = cases[name]
        print(
            f"{name}: {row['predicted_bytes'] / 2**20:.0f} predicted,"
            f" {row['measured_bytes'] / 2**20:.0f} MiB measured, ratio"
            f" {row['predicted_over_measured']:.3f} ({row['peak_phase']})",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    write(document("plan_memory", {"base": BASE, "cases": cases}), arguments.out)


if __name__ == "__main__":
    main()
