"""Seconds of kernels on a named GPU: a roofline with a floor.

Each kernel takes the longest of three times (Williams, Waterman and Patterson 2009,
doi:10.1145/1498765.1498785): its products at a part of the peak rate, its bytes at a
part of the memory's bandwidth, and what Python and the driver need to start it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sunpipe.train.gpus import Gpu
from sunpipe.train.work import Work

LIMITS = ("products", "memory", "starting")


@dataclass(frozen=True)
class Reached:
    """What a training reaches of a machine.

    Attributes
    ----------
    tensor, vector, memory : float
        Parts of the peak rates of products with tensor cores (bf16, TF32) and
        without (fp32), and of the bandwidth of memory.
    start_s : float
        Seconds in which a kernel is started, however small it is.
    """

    tensor: float
    vector: float
    memory: float
    start_s: float


# Fitted to 19 published times of StyleGAN2 on V100 and A100, `memory` apart: 4.1 of the
# 4.8 TB/s of an H200 are reached by simple kernels, as on those two. The fit is repeated,
# with its errors, by benchmarks/plan_anchors.py; a test holds these numbers to its result.
PUBLISHED = Reached(tensor=0.315, vector=0.65, memory=0.85, start_s=36.7e-6)


def product_rate(half: bool, gpu: Gpu, precision: str, reached: Reached) -> float:
    """Operations per second of products, of 16-bit numbers if `half`.

    Parameters
    ----------
    precision : {"fp32", "tf32", "bf16"}
        ``train.compute.precision``: what products of float32 may round to.
    """
    if half and gpu.bf16:
        return gpu.bf16 * 1e12 * reached.tensor
    if (half or precision != "fp32") and gpu.tf32:
        return gpu.tf32 * 1e12 * reached.tensor
    return gpu.fp32 * 1e12 * reached.vector


def kernel_seconds(
    work: Work, gpu: Gpu, precision: str, reached: Reached = PUBLISHED
) -> NDArray[np.float64]:
    """Seconds of each kernel by each limit, shape (3, N); a kernel takes the longest."""
    rates = [product_rate(half, gpu, precision, reached) for half in (False, True)]
    return np.stack([
        work.flops / np.where(work.half, rates[1], rates[0]),
        work.moved / (gpu.bandwidth * 1e9 * reached.memory),
        np.full(len(work.moved), reached.start_s),
    ])  # fmt: skip


def by_limit(
    work: Work, gpu: Gpu, precision: str, reached: Reached = PUBLISHED
) -> dict[str, float]:
    """Seconds of all kernels, one after the other, under what limits each."""
    times = kernel_seconds(work, gpu, precision, reached)
    longest = times.argmax(axis=0)
    return {name: float(times[place, longest == place].sum()) for place, name in enumerate(LIMITS)}
