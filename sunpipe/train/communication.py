"""Bytes and seconds that ranks spend on each other in one iteration.

Volumes of ZeRO from DeepSpeed's code (compare Rajbhandari et al. 2020,
arXiv:1910.02054, section 7); time of a collective by latency and bandwidth
(Hockney's model as in Thakur et al. 2005, doi:10.1177/1094342005051521, and for
the ring Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sunpipe.errors import UsageError
from sunpipe.train.engine import STAGE_3
from sunpipe.train.phases import lazy_penalty
from sunpipe.train_settings import TrainSettings

FLOAT = 4  # bytes of a gradient and of a parameter


@dataclass(frozen=True)
class Links:
    """Latency and bandwidth inside a node and between nodes.

    Attributes
    ----------
    inside, outside : float
        Bytes per second that one GPU sends inside its node, and that one node sends.
    latency_inside, latency_outside : float
        Seconds per hop of a ring.
    """

    inside: float = 200e9
    outside: float = 12.5e9
    latency_inside: float = 10e-6
    latency_outside: float = 10e-6


HDR100_PER_NODE = Links()
NIC_PER_GPU_25 = Links(outside=4 * 25e9)
NIC_PER_GPU_50 = Links(outside=4 * 50e9)


@dataclass(frozen=True)
class Traffic:
    """Sizes of the buffers that are reduced and gathered in one iteration, in bytes.

    Attributes
    ----------
    reduced : float
        Given to all-reduce, which sends ``2 (n - 1) / n`` of it from each rank.
    gathered : float
        Results of all-gathers, which send ``(n - 1) / n`` of it.
    rings : float
        Passes around the ring, each of ``n - 1`` hops: two for an all-reduce.
    """

    reduced: float
    gathered: float
    rings: float = 2


def traffic(parameters_g: int, parameters_d: int, settings: TrainSettings) -> Traffic:
    """Traffic of the mean iteration: G, D, and the penalties at their intervals.

    ======  ===========================================================
    stage   as DeepSpeed 0.19 does it
    ======  ===========================================================
    0       all-reduce
    1       all-reduce and all-gather
    2       the same, gradients in every pass
    ======  ===========================================================

    In units of (n - 1) / n parameters an all-reduce sends 2 and an all-gather 1.
    DeepSpeed's stages 1 and 2 all-reduce whole buckets and keep a part
    (`allreduce_and_scatter`), so they send 3, where a reduce-scatter and an
    all-gather (arXiv:1910.02054, section 7) would send 2. A penalty that is due in
    every iteration is part of the main phase: it has no step of its own.

    Parameters
    ----------
    parameters_g, parameters_d : int
        Numbers of parameters.

    Raises
    ------
    UsageError
        ``train.zero.stage = 3``, which is not offered.
    """
    t = settings
    if t.zero.stage == 3:
        raise UsageError(STAGE_3)
    steps_g, steps_d = (
        1 + (1 / interval if lazy_penalty(weight, interval) else 0)
        for weight, interval in ((t.pl_weight, t.pl_interval),
                                 (t.r1_gamma + t.r2_gamma, t.r1_interval))
    )  # fmt: skip
    size = FLOAT * (parameters_g * steps_g + parameters_d * steps_d)
    steps = steps_g + steps_d
    if t.zero.stage == 0:
        return Traffic(size, 0, rings=2 * steps)
    # stage 2 keeps no whole gradient to add to
    repeats = t.compute.accumulate if t.zero.stage == 2 else 1
    return Traffic(size * repeats, size, rings=steps * (2 * repeats + 1))


def communication_seconds(what: Traffic, world: int, gpus_per_node: int, links: Links) -> float:
    """Time of one iteration's collectives, nothing at the same time as anything else.

    A collective runs as rings inside the nodes, then a ring between them, in which
    the GPUs of a node share its links (Thakur et al., section 4.5, hierarchical).

    Raises
    ------
    ValueError
        When nodes are not full.
    """
    local = min(gpus_per_node, world)
    if world % local:
        raise ValueError(f"{world} ranks do not fill nodes of {gpus_per_node}")
    nodes = world // local
    size = 2 * what.reduced + what.gathered
    inside = (local - 1) * (what.rings * links.latency_inside + size / local / links.inside)
    between = (nodes - 1) * (what.rings * links.latency_outside + size / nodes / links.outside)
    return inside + between


def step_time(
    world: int, gpus_per_node: int, compute_s: float, what: Traffic, links: Links
) -> float:
    """Seconds of an iteration, communication not hidden behind computing: the worst case.

    Parameters
    ----------
    compute_s : float
        Seconds of one rank's iteration alone.
    """
    if world == 1:
        return compute_s
    return compute_s + communication_seconds(what, world, gpus_per_node, links)


@dataclass(frozen=True)
class Scaling:
    """One row of the model: weak scaling holds images per GPU, strong the batch."""

    world: int
    step_s: float
    images_per_s: float
    efficiency: float
    communication_share: float


def scaling_table(
    worlds: Iterable[int], gpus_per_node: int, seconds_per_image: float, images_per_gpu: int,
    what: Traffic, links: Links,
) -> list[Scaling]:  # fmt: skip
    """Weak scaling by the model: efficiency is images per second and GPU against one GPU's."""
    compute = seconds_per_image * images_per_gpu
    rows = []
    for world in worlds:
        step = step_time(world, gpus_per_node, compute, what, links)
        rows.append(Scaling(world, step, world * images_per_gpu / step, compute / step,
                            1 - compute / step))  # fmt: skip
    return rows


def fit(sizes: Sequence[float], seconds: Sequence[float], world: int) -> tuple[float, float]:
    """Latency per hop (s) and bandwidth (bytes/s) from measured all-reduces.

    Least squares of ``2 (n - 1) alpha + 2 (n - 1) / n size beta`` with relative
    errors, so that small messages count as much as large ones.

    Parameters
    ----------
    sizes, seconds : sequence of float
        Bytes all-reduced over `world` ranks, and the time it took.

    Raises
    ------
    ValueError
        With fewer than two sizes, or when time does not grow with size.
    """
    if len(set(sizes)) < 2 or world < 2:
        raise ValueError("latency and bandwidth need two sizes and two ranks")
    size, time = np.asarray(sizes, float), np.asarray(seconds, float)
    hops = 2 * (world - 1)
    columns = np.stack([np.full_like(size, hops), hops / world * size], axis=1) / time[:, None]
    (alpha, beta), *_ = np.linalg.lstsq(columns, np.ones_like(time), rcond=None)
    if beta <= 0:
        raise ValueError("measured all-reduces do not take longer for larger messages")
    return max(float(alpha), 0.0), 1 / float(beta)
