"""What this machine's CPU reaches: measured in a second, for a prediction of its pace.

A 3 x 3 convolution of the sizes that StyleGAN2 has at 32 x 32, a sum of two large
arrays, and a sum of two small ones; the shortest time of each. On a machine that is
busy with other work a training is slower.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sunpipe.train.gpus import CPU, Gpu
from sunpipe.train.roofline import Reached

# Parts of what is measured that whole trainings on one core of a Xeon reached: configs/demo.toml
# 23 to 29 s/kimg (23 by these numbers), configs/archive_hour.toml 11 to 15 (16); bfloat16 by
# benchmarks/results/train_step.json. A kernel starts 15 times as slowly as a sum outside a graph.
REACHED = {"tensor": 0.05, "vector": 0.22, "memory": 0.22}
STARTS = 15


def measure_cpu(channels: int = 64, budget_s: float = 0.25) -> tuple[Gpu, Reached]:
    """Rates of this process's threads, and the parts of them that a training reaches.

    Parameters
    ----------
    channels : int
        Width of the convolution.
    budget_s : float
        Seconds for each of four measurements.
    """
    rates = {dtype: _convolution_rate(channels, dtype, budget_s)
             for dtype in (torch.float32, torch.bfloat16)}  # fmt: skip
    large, small = torch.randn(2**21), torch.randn(64)
    into = torch.empty_like(large)
    moved = 3 * large.numel() * large.element_size()
    bandwidth = moved / _seconds(lambda: torch.add(large, large, out=into), budget_s)
    start = _seconds(lambda: small + small, budget_s)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cpu = Gpu(CPU, memory, rates[torch.float32] / 1e12, 0.0, rates[torch.bfloat16] / 1e12,
              bandwidth / 1e9, "", f"measured with {torch.get_num_threads()} threads")  # fmt: skip
    return cpu, Reached(**REACHED, start_s=STARTS * start)


def _convolution_rate(channels: int, dtype: torch.dtype, budget_s: float) -> float:
    """Operations per second."""
    x = torch.randn(8, channels, 32, 32).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(dtype)
    flops = 2 * x.numel() * channels * 9
    return flops / _seconds(lambda: F.conv2d(x, weight, padding=1), budget_s)


def _seconds(work: Callable[[], object], budget_s: float) -> float:
    """Shortest time of a call: that of a moment in which nobody else was served."""
    work()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end or len(times) < 20:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return min(times)
