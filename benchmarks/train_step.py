"""Whole training steps on the CPU: ours, the plain formulation, and the machine's limit.

Contenders take turns, phase by phase; CPU seconds of one thread, medians. A step is
G main and D main (images for D generated, Adam and EMA included), R1 and path length
weighted by their intervals. The plain formulation (`benchmarks/plain_layers.py`) gives
the same numbers from modulated weights in groups, NCHW, upfirdn by zero insertion. The
limit is the operations of the step's convolutions and matrix products over the rate of
a product of 1024 x 1024 matrices, measured between the rounds in the same type. Widths
are a sixteenth of the published ones (channel_base 2048), at most 64.

    python benchmarks/train_step.py --out benchmarks/results/train_step.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import document, write
from benchmarks.plain_layers import Formulation
from benchmarks.whole_step import (
    Contender,
    Step,
    matmul_rate,
    step_flops,
    weights,
)
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings

MODEL = ModelSettings(channel_base=2048, channel_max=64, z_dim=64, w_dim=64)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU = torch.device("cpu")


def contenders(batch: int, model: ModelSettings) -> list[Contender]:
    """Ours and the plain formulation in both types, and the original code's layout."""

    def make(name: str, layers: Formulation, precision: Any, last: bool) -> Contender:
        compute = ComputeSettings(precision=precision, bf16_from=8, channels_last=last)
        return Contender(name, TrainSettings(batch=batch, model=model, compute=compute), layers)

    return [
        make("ours fp32", "ours", "fp32", True),
        make("plain fp32", "grouped", "fp32", False),
        make("scaled fp32", "scaled", "fp32", False),
        make("ours bf16", "ours", "bf16", True),
        make("plain bf16", "grouped", "bf16", False),
    ]


def measure(resolution: int, batch: int, rounds: int, model: ModelSettings) -> dict[str, Any]:
    """Images per second of each contender, and the limits."""
    t = TrainSettings(batch=batch, model=model)
    often = weights(t)
    steps = [Step(one, resolution, 1, CPU) for one in contenders(batch, model)]
    times: dict[str, dict[str, list[float]]] = {
        step.contender.name: {phase: [] for phase in often} for step in steps
    }
    rates: dict[str, list[float]] = {name: [] for name in DTYPES}
    for turn in range(rounds + 1):
        for name, dtype in DTYPES.items():
            rates[name].append(matmul_rate(dtype, CPU, 1024))
        for phase in often:
            for step in steps:
                seconds = step.seconds(phase)
                if turn:
                    times[step.contender.name][phase].append(seconds)
    flops = step_flops(resolution, 1, t)
    found: dict[str, Any] = {"batch": batch, "gflop_per_image": flops / batch / 1e9}
    for name, phases in times.items():
        medians = {phase: statistics.median(values) for phase, values in phases.items()}
        seconds = sum(often[phase] * medians[phase] for phase in often)
        limit = statistics.median(rates[name.split()[1]])
        found[name] = {
            "images_per_s": batch / seconds,
            "seconds_of_a_phase": medians,
            "gflop_per_s": flops / seconds / 1e9,
            "share_of_the_limit": flops / seconds / limit,
        }
    for name in DTYPES:
        rate = statistics.median(rates[name])
        found[f"limit {name}"] = {"gflop_per_s": rate / 1e9, "images_per_s": batch * rate / flops}
        found[f"ours_over_plain_{name}"] = (
            found[f"ours {name}"]["images_per_s"] / found[f"plain {name}"]["images_per_s"]
        )
    return found


def shares(resolution: int, batch: int, precision: str, model: ModelSettings) -> dict[str, float]:
    """Where the time of G main and D main goes, by operation (torch.profiler, self CPU time)."""
    chosen = next(one for one in contenders(batch, model) if one.name == f"ours {precision}")
    step = Step(chosen, resolution, 1, CPU)
    for phase in ("G main", "D main"):
        step.run(phase)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for phase in ("G main", "D main"):
            step.run(phase)
    events = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in events)
    return {one.key: round(one.self_cpu_time_total / total, 4) for one in events[:12]}


def main() -> None:
    """Measure each resolution and write one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channel-base", type=int, default=MODEL.channel_base)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = ModelSettings(channel_base=arguments.channel_base, channel_max=MODEL.channel_max,
                          z_dim=MODEL.z_dim, w_dim=MODEL.w_dim)  # fmt: skip
    results: dict[str, Any] = {"channel_base": model.channel_base, "steps": {}, "profile": {}}
    for resolution in arguments.resolutions:
        found = measure(resolution, arguments.batch, arguments.rounds, model)
        results["steps"][str(resolution)] = found
        line = ", ".join(f"{name} {row['images_per_s']:.2f}"
                         for name, row in found.items() if isinstance(row, dict))  # fmt: skip
        print(f"{resolution}: images/s {line}", file=sys.stderr, flush=True)
        if arguments.out is not None:  # what is known so far
            write(document("train_step", results), arguments.out)
    for precision in DTYPES:
        last = arguments.resolutions[-1]
        results["profile"][precision] = shares(last, arguments.batch, precision, model)
    write(document("train_step", results), arguments.out)


if __name__ == "__main__":
    main()
