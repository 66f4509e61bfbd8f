"""How fast a training is expected to be on a named GPU: seconds per kimg, and of what.

Kernels by the roofline (`sunpipe.train.roofline`), the optimiser by the bytes that it
moves, its offload by the way to the host, ranks by the model of their collectives
(`sunpipe.train.communication`). Loading, statistics, checkpoints and metrics are not
in it, nor the rows that ranks exchange when they share an image (``train.compute.stripes``);
a run's ``data_wait_s`` says whether loading should be.
"""

from __future__ import annotations

from dataclasses import dataclass

from sunpipe.train.communication import HDR100_PER_NODE, Links, communication_seconds, traffic
from sunpipe.train.gpus import CPU, Gpu
from sunpipe.train.ledger import FLOAT, local_samples
from sunpipe.train.meter import networks, phase_passes
from sunpipe.train.phases import lazy_penalty
from sunpipe.train.roofline import LIMITS, PUBLISHED, Reached, by_limit
from sunpipe.train.work import pass_work, phase_works
from sunpipe.train_settings import TrainSettings

# torch's Adam in its operations (lerp, mul, addcmul, sqrt, div, add, addcdiv): numbers that
# they read and write for each parameter.
ADAM_PASSES = 24
# Offload: a link of PCIe 4 x 16 as copies of pinned memory reach it, and the memory of the host
# at the 34 GB/s that two of its cores reach (measured); more cores are faster.
PCIE_BYTES_S, HOST_BYTES_S = 20e9, 34e9


@dataclass(frozen=True)
class Pace:
    """Seconds of the mean iteration of one rank.

    Attributes
    ----------
    limits : dict
        Seconds of kernels under what limits them: ``products``, ``memory``, ``starting``.
    phases : dict
        The same seconds by phase, the penalties in proportion to their intervals.
    update, offload, communication : float
    batch : int
        Images of an iteration, of all ranks.
    flops, moved : float
        Of one rank's iteration.
    """

    limits: dict[str, float]
    phases: dict[str, float]
    update: float
    offload: float
    communication: float
    batch: int
    flops: float
    moved: float

    @property
    def iteration_s(self) -> float:
        """Seconds of an iteration, nothing at the same time as anything else."""
        return sum(self.limits.values()) + self.update + self.offload + self.communication

    @property
    def seconds_per_kimg(self) -> float:
        """Seconds per thousand images shown."""
        return 1000 * self.iteration_s / self.batch

    @property
    def limit(self) -> str:
        """What takes most of an iteration."""
        rows = {**self.limits, "offload": self.offload, "communication": self.communication}
        return max(rows, key=rows.__getitem__)


def pace(
    resolution: int, channels: int, t: TrainSettings, gpu: Gpu, ranks: int = 1,
    gpus_per_node: int | None = None, links: Links = HDR100_PER_NODE, reached: Reached = PUBLISHED,
) -> Pace:  # fmt: skip
    """Expected pace of a training.

    Parameters
    ----------
    ranks : int
        GPUs that share a batch.
    gpus_per_node : int, optional
        By default all ranks are in one node.
    links : Links
        Inside and between nodes; by default one 100 Gbit/s adapter per node.

    Raises
    ------
    ValueError
        When nodes are not full.
    """
    limits, phases = dict.fromkeys(LIMITS, 0.0), {}
    flops = moved = 0.0
    for phase, (often, work) in phase_works(resolution, channels, t, ranks).items():
        found = by_limit(work, gpu, t.compute.precision, reached)
        for name, seconds in found.items():
            limits[name] += often * seconds
        phases[phase] = often * sum(found.values())
        flops += often * float(work.flops.sum())
        moved += often * float(work.moved.sum())
    g, d = (sum(p.numel() for p in net.parameters())
            for net in networks(resolution, channels, t.model, t.compute))  # fmt: skip
    stepped = (
        g * _steps(t.pl_weight, t.pl_interval) + d * _steps(t.r1_gamma + t.r2_gamma, t.r1_interval)
    ) / (ranks if t.zero.stage else 1)
    update = offload = 0.0
    if t.zero.offload and t.zero.stage and gpu.name != CPU:  # a CPU has it at home already
        offload = stepped * FLOAT * (2 / PCIE_BYTES_S + ADAM_PASSES / HOST_BYTES_S)
    else:
        update = ADAM_PASSES * FLOAT * stepped / (gpu.bandwidth * 1e9 * reached.memory)
    world = 0.0
    if ranks > 1:
        world = communication_seconds(traffic(g, d, t), ranks, gpus_per_node or ranks, links)
    return Pace(limits, phases, update, offload, world, t.batch, flops, moved)


def least_seconds_per_kimg(
    resolution: int, channels: int, t: TrainSettings, gpu: Gpu, ranks: int = 1,
    reached: Reached = PUBLISHED,
) -> float:  # fmt: skip
    """A bound of `pace` in a fourth of its time: kernels of D's main phase alone."""
    _, samples = local_samples(t, ranks)
    what = phase_passes(t, samples)["D main"]
    work = pass_work(what, resolution, channels, t.model, t.compute)
    seconds = sum(by_limit(work, gpu, t.compute.precision, reached).values())
    return 1000 * t.compute.accumulate * seconds / t.batch


def _steps(weight: float, interval: int) -> float:
    """Updates of a network in the mean iteration."""
    return 1 + (1 / interval if lazy_penalty(weight, interval) else 0)
