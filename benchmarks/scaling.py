"""Ranks that train together: step time, communication, and the model checked against them.

Gloo ranks on this machine, through the training engine (ZeRO stage 0 and 1): bytes
given to collectives against `sunpipe.train.communication`, the share of time inside
them, and latency and bandwidth fitted from all-reduces in the same run. The model then
predicts the step of n ranks from that of one. More ranks than cores share them: the
prediction multiplies computing by ranks / cores, and no speed-up may be read from it.
The table to 512 GPUs at the end is the model alone, and labelled so.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json
    srun -n 4 python benchmarks/scaling.py --rank --out scaling-4.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as torch_dist
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import document, write
from sunpipe import dist
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.communication import (
    HDR100_PER_NODE,
    NIC_PER_GPU_25,
    NIC_PER_GPU_50,
    Links,
    communication_seconds,
    fit,
    scaling_table,
    traffic,
)
from sunpipe.train.engine import Engine, initialize
from sunpipe.train.meter import Pass, loss, networks
from sunpipe.train_settings import ModelSettings, TrainSettings, ZeroSettings

REPO = Path(__file__).resolve().parent.parent
SIZE, IMAGES, STEPS = 32, 2, 6
MODEL = ModelSettings(channel_max=128, z_dim=128, w_dim=128)
MESSAGES = [2**power for power in (10, 14, 18, 21, 23)]
LINKS = {"one HDR100 NIC a node": HDR100_PER_NODE, "25 GB/s a GPU": NIC_PER_GPU_25,
         "50 GB/s a GPU": NIC_PER_GPU_50}  # fmt: skip


class Phases(nn.Module):
    """Main losses of G or of D, for the engine."""

    def __init__(self, trained: nn.Module, g: Generator, d: Discriminator) -> None:
        super().__init__()
        self.trained = trained
        self._both = (g, d)  # in a tuple: not submodules

    def forward(self, phase: str, z: torch.Tensor, real: torch.Tensor) -> Any:
        """Loss, and nothing to watch."""
        return loss(Pass(phase, len(z)), *self._both, z, real), {}


class Counter:
    """Bytes given to collectives, and seconds spent in them."""

    def __init__(self) -> None:
        self.reduced = self.gathered = 0
        self.seconds = 0.0

    def wrap(self, name: str) -> Any:
        """Patch one collective of torch."""
        inner: Callable[..., Any] = getattr(torch_dist, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            first = args[0] if args else next(iter(kwargs.values()))  # what is filled
            start = time.perf_counter()
            out = inner(*args, **kwargs)
            self.seconds += time.perf_counter() - start
            if name == "all_reduce":
                self.reduced += first.nbytes
            else:
                parts = first if isinstance(first, list) else [first]
                self.gathered += sum(part.nbytes for part in parts)
            return out

        return patch.object(torch_dist, name, call)


def all_reduces(repeats: int = 7) -> list[float]:
    """Median seconds of an all-reduce of each of `MESSAGES` bytes."""
    found = []
    for size in MESSAGES:
        buffer, times = torch.zeros(size // 4), []
        for _ in range(repeats):
            torch_dist.barrier()
            start = time.perf_counter()
            torch_dist.all_reduce(buffer)
            times.append(time.perf_counter() - start)
        found.append(statistics.median(times[1:]))
    return found


def steps(stage: int, ranks: dist.Ranks, counter: Counter) -> dict[str, float]:
    """Medians of `STEPS` iterations at a ZeRO stage."""
    torch.manual_seed(0)
    g, d = Generator(SIZE, 1, MODEL), Discriminator(SIZE, 1, MODEL)
    zero = ZeroSettings(stage=stage, offload=False)  # type: ignore[arg-type]
    engines = {
        phase: Engine(Phases(net, g, d), lr=1e-3, beta2=0.99, zero=zero, micro_batch=IMAGES,
                      ranks=ranks)
        for phase, net in (("G main", g), ("D main", d))
    }  # fmt: skip
    real = torch.randn(IMAGES, 1, SIZE, SIZE)
    seconds, inside = [], []
    for number in range(STEPS + 2):
        if number == 2:
            counter.reduced = counter.gathered = 0
        if ranks.world > 1:
            torch_dist.barrier()
        start, before = time.perf_counter(), counter.seconds
        for phase, engine in engines.items():
            for other, one in engines.items():
                one.requires_grad(other == phase)
            engine.step(phase, [(torch.randn(IMAGES, MODEL.z_dim), real)])
        seconds.append(time.perf_counter() - start)
        inside.append(counter.seconds - before)
    return {
        "step_s": statistics.median(seconds[2:]),
        "in_collectives_s": statistics.median(inside[2:]),
        "reduced": counter.reduced / STEPS, "gathered": counter.gathered / STEPS,
    }  # fmt: skip


def rank_main(out: Path, stages: list[int]) -> None:
    """What each rank does; rank 0 writes."""
    torch.set_num_threads(1)
    ranks, counter = dist.discover(), Counter()
    names = ("all_reduce", "all_gather_into_tensor", "all_gather")
    patches = [counter.wrap(name) for name in names]
    for one in patches:
        one.start()
    initialize(ranks)
    found: dict[str, Any] = {str(stage): steps(stage, ranks, counter) for stage in stages}
    for one in patches:
        one.stop()
    found["all_reduce_s"] = all_reduces() if ranks.world > 1 else []
    if ranks.is_main:
        out.write_text(json.dumps(found))
    torch_dist.destroy_process_group()


def launch(world: int, stages: list[int]) -> dict[str, Any]:
    """`rank_main` in `world` processes of this machine."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as folder:
        probe.bind(("127.0.0.1", 0))
        port, out = probe.getsockname()[1], Path(folder) / "found.json"
        probe.close()
        running = []
        for rank in range(world):
            env = os.environ | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
                "DS_ACCELERATOR": "cpu",
            }  # fmt: skip
            command = [
                sys.executable,
                __file__,
                "--rank",
                "--out",
                str(out),
                "--stages",
                *map(str, stages),
            ]
            running.append(subprocess.Popen(command, env=env, cwd=REPO, stdout=subprocess.DEVNULL))
        if any(process.wait(timeout=500) for process in running):
            raise SystemExit(f"scaling: a rank of {world} failed")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def parameters(size: int, model: ModelSettings) -> tuple[int, int]:
    """Numbers of parameters of G and of D."""
    t = TrainSettings(model=model)
    g, d = (sum(p.numel() for p in net.parameters())
            for net in networks(size, 1, model, t.compute))  # fmt: skip
    return g, d


def compare(
    alone: dict[str, Any], many: dict[str, Any], messages: list[float], world: int, stage: int
) -> dict[str, Any]:
    """Counted against formula, predicted against measured."""
    t = TrainSettings(model=MODEL, pl_weight=0, r1_gamma=0,
                      zero=ZeroSettings(stage=stage, offload=False))  # type: ignore[arg-type]  # fmt: skip
    what = traffic(*parameters(SIZE, MODEL), t)
    alpha, bandwidth = fit(MESSAGES, messages, world)
    links = Links(inside=bandwidth, latency_inside=alpha)
    spent = communication_seconds(what, world, world, links)
    crowded = max(1.0, world / (os.cpu_count() or 1))
    predicted = alone["step_s"] * crowded + spent
    return many | {
        "all_reduce_s": messages,
        "latency_s": alpha, "bandwidth_bytes_per_s": bandwidth,
        "formula_reduced": what.reduced, "formula_gathered": what.gathered,
        "counted_over_formula": (many["reduced"] + many["gathered"])
        / (what.reduced + what.gathered),
        "communication_share": many["in_collectives_s"] / many["step_s"],
        "predicted_communication_s": spent, "predicted_step_s": predicted,
        "predicted_over_measured": predicted / many["step_s"],
    }  # fmt: skip


def model_table() -> dict[str, Any]:
    """Weak scaling to 512 GPUs by the model, networks of 1024 x 1024."""
    t, worlds = TrainSettings(), [1, 4, 8, 16, 32, 64, 128, 256, 512]
    what = traffic(*parameters(1024, t.model), t)
    return {
        "label": "model, not measured",
        "assumptions": "4 GPUs a node at 200 GB/s, 10 us a hop, 4 images a GPU, ZeRO stage"
        f" {t.zero.stage} as DeepSpeed does it, float32, R1 and path length at their intervals,"
        " no overlap of communication with computing, no other wait",
        "traffic": dataclasses.asdict(what),
        "efficiency": {
            f"{ms} ms an image, {name}": {
                str(row.world): round(row.efficiency, 3)
                for row in scaling_table(worlds, 4, ms / 1000, 4, what, links)
            }
            for ms in (117, 40, 15)
            for name, links in LINKS.items()
        },
    }


def main() -> None:
    """Measure 1, 2 and 4 ranks and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", action="store_true", help="be one rank; srun and torchrun")
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--worlds", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.rank:
        rank_main(args.out, args.stages)
        return
    alone = launch(1, args.stages)
    found: dict[str, Any] = {f"stage {stage}": {"1": alone[str(stage)]} for stage in args.stages}
    for world in args.worlds:
        many = launch(world, args.stages)
        for stage in args.stages:
            row = compare(alone[str(stage)], many[str(stage)], many["all_reduce_s"], world, stage)
            found[f"stage {stage}"][str(world)] = row
            print(f"stage {stage}, {world} ranks: {row}", file=sys.stderr, flush=True)
    setting = {"resolution": SIZE, "images_per_rank": IMAGES, "steps": STEPS,
               "parameters": parameters(SIZE, MODEL), "messages": MESSAGES}  # fmt: skip
    write(document("scaling", {"setting": setting, "measured": found, "model": model_table()}),
          args.out)  # fmt: skip


if __name__ == "__main__":
    main()
