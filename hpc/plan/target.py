"""Where a training would run: GPUs, nodes, time limit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpc.profile import Profile, Resources, load_profile, minutes
from sunpipe.errors import UsageError

if TYPE_CHECKING:
    from sunpipe.train.gpus import Gpu

# Not in the ledger: the CUDA context of a process, and what cuBLAS, cuDNN and NCCL keep. Seen
# with CUDA 11 and 12 on data-centre GPUs as the difference of nvidia-smi and torch's own count.
CONTEXT_GIB, LIBRARIES_GIB = 0.5, 0.5
# What the allocator may lose to fragments: `sunpipe train --dry-run` suggests settings for the
# same part of a GPU.
USABLE = 0.92


@dataclass(frozen=True)
class Target:
    """Where a training would run.

    Attributes
    ----------
    gpu : Gpu or None
        None on CPUs.
    nodes, per_node : int
        Ranks are one per GPU, or per task on CPUs.
    limit_s : int or None
        Time limit of the job, less the seconds in which it stops; None without a profile.
    host_bytes : float or None
        Memory of the host for one rank; None where nobody says it.
    note : str
        What is odd about it; empty: nothing.
    """

    gpu: Gpu | None
    nodes: int
    per_node: int
    limit_s: int | None
    source: str
    host_bytes: float | None = None
    note: str = ""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """As torch calls it."""
        return "cpu" if self.gpu is None else "cuda"

    @property
    def ranks(self) -> int:
        """Processes of the training."""
        return self.nodes * self.per_node

    @property
    def memory_bytes(self) -> float | None:
        """What the ledger may take of one GPU; None on CPUs."""
        if self.gpu is None:
            return None
        return max(USABLE * self.gpu.memory_gib - CONTEXT_GIB - LIBRARIES_GIB, 0) * 2**30

    def as_json(self) -> dict[str, Any]:
        """What ``sunpipe plan --json`` says about the machine."""
        return {"gpu": vars(self.gpu) if self.gpu else None, "nodes": self.nodes,
                "ranks_per_node": self.per_node, "ranks": self.ranks, "limit_s": self.limit_s,
                "usable_bytes": self.memory_bytes, "allowance": {
                    "context_gib": CONTEXT_GIB, "libraries_gib": LIBRARIES_GIB,
                    "usable_share": USABLE}, "source": self.source,
                "host_bytes": self.host_bytes, "note": self.note}  # fmt: skip


def target(
    cluster: Path | None, gpu: str | None, nodes: int | None, gpus_per_node: int | None
) -> Target:
    """From what was asked for, then the profile, then this machine.

    Parameters
    ----------
    gpu : str or None
        A type, a file, ``cpu``, or None: that of the profile, else that of this machine.

    Raises
    ------
    UsageError
        An unknown GPU.
    """
    from sunpipe.train.gpus import find_gpu

    profile = load_profile(cluster) if cluster is not None else None
    wanted = profile.stages.train if profile else None
    name = gpu or (profile.gpu if profile else "")
    on_cpu = name == "cpu" or bool(profile and not gpu and not wanted_gpus(profile))
    if on_cpu:
        found, source = None, "CPU"
    elif name:
        found, source = find_gpu(name), "--gpu" if gpu else f"the profile {cluster}"
    else:
        found, source = _here()
        if found is None and profile is not None:
            raise UsageError(
                f"{cluster} does not say which GPUs it has: set gpu in it, or give --gpu TYPE"
            )
    per_node = gpus_per_node or (wanted.tasks_per_node if wanted else 1)
    limit = None
    if profile and wanted:
        limit = 60 * minutes(wanted.time) - profile.signal_s
    host = host_bytes(wanted, per_node) if wanted else None
    if profile is None and found is None:  # this machine
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / per_node
    note = ""
    if found is not None and profile and not wanted_gpus(profile):
        note = (f"the profile {cluster} asks for no GPU (gpus_per_node = 0 for train): its job"
                " would run on CPUs")  # fmt: skip
    nodes = nodes or (wanted.nodes if wanted else 1)
    return Target(found, nodes, per_node, limit, source, host, note)


def of_profile(profile: Profile) -> Target | None:
    """Where the training of a profile would run; None on GPUs of which it does not say the type.

    Raises
    ------
    UsageError
        A GPU without figures.
    """
    from sunpipe.train.gpus import find_gpu

    wanted = profile.stages.train
    if wanted.gpus_per_node and not profile.gpu:
        return None
    gpu = find_gpu(profile.gpu) if wanted.gpus_per_node else None
    limit = 60 * minutes(wanted.time) - profile.signal_s
    return Target(gpu, wanted.nodes, wanted.tasks_per_node, limit, "profile", host_bytes(wanted))


def host_bytes(wanted: Resources, ranks: int | None = None) -> float | None:
    """``mem`` of a node for each of its tasks; None where the site decides (or all: ``0``).

    Parameters
    ----------
    ranks : int, optional
        On a node, by default the profile's tasks.
    """
    if not wanted.mem or not int(wanted.mem[:-1]):
        return None
    node = int(wanted.mem[:-1]) * 2 ** (10 * (1 + "KMGT".index(wanted.mem[-1])))
    return node / (ranks or wanted.tasks_per_node)


def wanted_gpus(profile: Profile) -> bool:
    """Whether the training of this profile asks for GPUs."""
    return bool(profile.stages.train.gpus_per_node)


def _here() -> tuple[Gpu | None, str]:
    """The GPU of this machine."""
    from sunpipe.train.gpus import gpu_here

    found = gpu_here()
    return found, "the GPU of this machine" if found else "the CPU of this machine"
