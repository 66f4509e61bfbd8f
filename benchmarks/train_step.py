"""Modulated convolution: ours against the grouped form, interleaved in one run.

Ours scales the input channels, convolves once with shared weights, in
channels-last; the peer modulates one weight per sample and convolves in groups
(groups = batch), as most public re-implementations of StyleGAN2 do. The limit
is the same convolution without any modulation. Forward and backward, float32,
one thread, CPU seconds; the median of several rounds.

    python benchmarks/train_step.py > benchmarks/train_step.json
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sunpipe.models.ops import ModulatedConv

LAYERS = [(512, 32), (128, 128), (32, 256)]  # channels, size
BATCH, ROUNDS = 4, 5


def grouped(layer: ModulatedConv, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Equation 1 and 3 of arXiv:1912.04958 taken literally: one weight per sample."""
    batch, channels, height, width = x.shape
    weight = layer.weight[None] * layer.gain * style[:, None, :, None, None]
    weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    out = F.conv2d(
        x.reshape(1, batch * channels, height, width), weight.flatten(0, 1), padding=1, groups=batch
    )
    return out.reshape(batch, -1, height, width)


def cpu_seconds(call: Callable[[], torch.Tensor]) -> float:
    """CPU time of one forward and backward."""
    start = time.process_time()
    call().sum().backward()
    return time.process_time() - start


def measure(channels: int, size: int) -> dict[str, float]:
    """Median CPU milliseconds of the three contenders on one layer."""
    layer = ModulatedConv(channels, channels, 3)
    x = torch.randn(BATCH, channels, size, size, requires_grad=True)
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_(True)
    style = torch.randn(BATCH, channels, requires_grad=True)
    difference = float((layer(x, style) - grouped(layer, x, style)).detach().abs().max())
    contenders: dict[str, Callable[[], torch.Tensor]] = {
        "ours": lambda: layer(last, style),
        "grouped": lambda: grouped(layer, x, style),
        "limit": lambda: F.conv2d(last, layer.weight, padding=1),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, call in contenders.items():
            seconds = cpu_seconds(call)
            if turn:
                times[name].append(seconds)
    medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
    return {
        **{f"{name}_ms": round(value, 1) for name, value in medians.items()},
        "grouped_over_ours": round(medians["grouped"] / medians["ours"], 2),
        "ours_over_limit": round(medians["ours"] / medians["limit"], 2),
        "max_difference": difference,
    }


def main() -> None:
    """Print one JSON document."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {f"{c} channels at {s} x {s}": measure(c, s) for c, s in LAYERS}
    json.dump(
        {"torch": torch.__version__, "machine": platform.machine(), "threads": 1, "batch": BATCH,
         "rounds": ROUNDS, "layers": results},
        sys.stdout, indent=2,
    )  # fmt: skip
    print()


if __name__ == "__main__":
    main()
