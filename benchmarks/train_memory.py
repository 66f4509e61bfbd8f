"""The memory ledger against the memory that real steps on this CPU take.

Each configuration runs in a process of its own: networks, EMA, two Adams and two
batches are made, then the four phases are run twice, each with its update. The
highest resident size since the phase began (``VmHWM``, reset through
``/proc/self/clear_refs``), less that of the process before the networks were made,
is compared with the ledger's states and phase. glibc returns freed blocks at once
(``MALLOC_MMAP_THRESHOLD_``), so that the resident size follows what is allocated.

    python benchmarks/train_memory.py --out benchmarks/results/train_memory.json
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from benchmarks.machine import document, write  # noqa: E402
from benchmarks.resident import reset, status  # noqa: E402
from sunpipe.models.stylegan2 import Discriminator, Generator  # noqa: E402
from sunpipe.train.ledger import ledger  # noqa: E402
from sunpipe.train.meter import PHASES, Pass, loss  # noqa: E402
from sunpipe.train_settings import (  # noqa: E402
    ComputeSettings,
    ModelSettings,
    TrainSettings,
    ZeroSettings,
)

WIDE = {"channel_base": 4096, "channel_max": 128, "z_dim": 128, "w_dim": 128}
CASES: dict[str, dict[str, Any]] = {
    "64, batch 16": {"resolution": 64, "batch": 16},
    "128, batch 8": {"resolution": 128, "batch": 8},
    "128, batch 8, bf16": {"resolution": 128, "batch": 8, "compute": {"precision": "bf16"}},
    "128, batch 8, 3 channels, 4 passes": {
        "resolution": 128, "batch": 8, "channels": 3, "compute": {"accumulate": 4}},
    "256, batch 4": {"resolution": 256, "batch": 4},
    "256, batch 4, checkpoint block": {
        "resolution": 256, "batch": 4, "compute": {"checkpoint": "block"}},
    "256, batch 4, checkpoint conv": {
        "resolution": 256, "batch": 4, "compute": {"checkpoint": "conv"}},
    "256, batch 4, bf16, checkpoint conv": {
        "resolution": 256, "batch": 4, "compute": {"checkpoint": "conv", "precision": "bf16"}},
    "64, batch 4, parameters of 1024": {
        "resolution": 64, "batch": 4, "model": {"channel_base": 32768}},
}  # fmt: skip


def settings(case: dict[str, Any]) -> TrainSettings:
    """Training settings of a case: plain Adam, no ZeRO."""
    return TrainSettings(
        batch=case["batch"], model=ModelSettings(**case.get("model", WIDE)),
        compute=ComputeSettings(**case.get("compute", {})),
        zero=ZeroSettings(stage=0, offload=False),
    )  # fmt: skip


def run(resolution: int, channels: int, t: TrainSettings, rounds: int = 2) -> dict[str, int]:
    """Highest resident bytes of each phase, of real steps."""
    g = Generator(resolution, channels, t.model, t.compute)
    d = Discriminator(resolution, channels, t.model, t.compute)
    kept = copy.deepcopy(g)
    adams = {net: torch.optim.Adam(net.parameters(), betas=(0.0, 0.99)) for net in (g, d)}
    shape = (t.batch, channels, resolution, resolution)
    real, fake = torch.randn(shape), torch.randn(shape)
    samples = t.batch // t.compute.accumulate
    peaks: dict[str, int] = {}
    for turn in range(rounds):
        for phase in PHASES:
            net = g if phase in PHASES[:2] else d
            g.requires_grad_(net is g)
            d.requires_grad_(net is d)
            if turn:
                reset()
            count = samples // t.pl_batch_shrink if phase == "path length" else samples
            for _ in range(t.compute.accumulate):
                what = Pass(phase, count, t.diffaugment)
                loss(what, g, d, torch.randn(count, t.model.z_dim), real[:count]).backward()
            adams[net].step()
            adams[net].zero_grad()
            peaks[phase] = status("VmHWM")
    del kept, fake
    return peaks


def child(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Predicted and measured bytes of each phase; run in a process of its own."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    resolution, channels, t = case["resolution"], case.get("channels", 1), settings(case)
    # code and buffers of the kernels belong to the process, not to the training
    small = ModelSettings(channel_base=64, channel_max=8, z_dim=8, w_dim=8, mapping_layers=2)
    run(64, channels, dataclasses.replace(t, model=small, batch=4 * t.compute.accumulate))
    predicted = ledger(resolution, channels, t, device="cpu")
    before = reset()
    measured = run(resolution, channels, t)
    return {
        phase: {
            "predicted": predicted.states + max(usage.total, predicted.update),
            "measured": measured[phase] - before,
        }
        for phase, usage in predicted.phases.items()
    }


def measure(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """`child` in a process whose allocator returns memory at once."""
    quiet = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
             "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(case)], capture_output=True, text=True,
        check=True, env={**os.environ, **quiet}, cwd=REPO,
    )  # fmt: skip
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    for row in found.values():
        row["predicted_over_measured"] = row["predicted"] / row["measured"]
    return found


def main() -> None:
    """Measure every case and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", type=json.loads)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child)))
        return
    cases = {}
    for name, case in CASES.items():
        cases[name] = measure(case)
        ratios = [row["predicted_over_measured"] for row in cases[name].values()]
        print(f"{name}: predicted / measured {min(ratios):.3f} to {max(ratios):.3f}", flush=True)
    write(document("train_memory", {"width": WIDE, "cases": cases}), arguments.out)


if __name__ == "__main__":
    main()
