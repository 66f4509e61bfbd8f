"""What a training would be, without starting it."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any, Literal

from sunpipe import dist
from sunpipe.errors import UsageError
from sunpipe.paths import Layout
from sunpipe.run import find_run
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader

# What a training process on a CPU grows by in its first steps, feature maps apart: code of
# kernels and of the backward pass, arenas of threads, TensorBoard. Seen in 20 runs of
# configs/tiny.toml with one and two ranks, torch 2 on x86: 154 to 185 MiB.
FIRST_STEPS = 160 * 2**20
# A safetensors header: about so many bytes for each tensor of it, and the small JSON files.
TENSOR_HEADER = 110


def plan_training(
    cfg: Config, ranks: int | None = None, gpu_memory_gib: float | None = None
) -> dict[str, Any]:
    """Dataset, run folder, ranks, parameter counts and memory of a training.

    ``memory`` is the ledger of one rank (bytes), ``memory_levers`` what each lever
    would save; ``memory_of_the_device`` and ``suggested`` are given where there is a
    GPU: settings that fit it, None if none do.

    Parameters
    ----------
    ranks : int, optional
        Plan for so many GPUs, whatever this machine has; by default for the ranks
        of the launcher.
    gpu_memory_gib : float, optional
        Memory of one of these GPUs, which are taken to have units for bfloat16; without
        it that is asked of the GPU here.

    Raises
    ------
    UsageError, DataError
        What the training itself would refuse, see `sunpipe.train.begin.check`.
    """
    import torch

    from sunpipe.train.advice import explain, suggest
    from sunpipe.train.begin import check
    from sunpipe.train.ledger import Device, ledger
    from sunpipe.train.meter import networks

    layout = Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",))
    here = dist.discover() if ranks is None else _planned(ranks)
    check(cfg, here, reader)
    info, t = reader.info, cfg.train
    size, channels, world = info.resolution, len(info.channels), here.world
    elsewhere = ranks is not None or gpu_memory_gib is not None
    device: Device = "cuda" if elsewhere or torch.cuda.is_available() else "cpu"
    g, d = networks(size, channels, t.model, t.compute)
    continued = find_run(layout, cfg.name)
    plan: dict[str, Any] = {
        "images": len(reader),
        "shape": [channels, size, size],
        "parameters": {
            name: sum(p.numel() for p in net.parameters()) for name, net in (("G", g), ("D", d))
        },
        "ranks": world,
        "continues": continued.name if continued else None,
        "memory": ledger(size, channels, t, world, device).as_json(),
        "memory_levers": explain(size, channels, t, world, device),
    }
    memory = _memory(gpu_memory_gib)
    if memory is not None:
        found = suggest(size, channels, t, world, 0.92 * memory, device,
                        half=gpu_memory_gib is not None or _half_here())  # fmt: skip
        plan["memory_of_the_device"] = memory
        plan["suggested"] = None if found is None else list(found.changes)
    return plan


def predicted(
    cfg: Config, resolution: int, channels: int, ranks: int, device: Literal["cuda", "cpu"],
    nodes: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a training is expected to take: ``plan.json`` of its run folder.

    Written at the start, so that what happens can be held against it afterwards.

    Parameters
    ----------
    resolution, channels : int
        Of the images.
    ranks : int
        Processes of the training.
    nodes : int, optional
        Over which they are spread; where it is not known, or nodes are not full, all
        are taken to be in one.

    Returns
    -------
    dict
        ``schema``; ``by`` (how the numbers were found); ``device``; ``ranks``;
        ``gpu`` (str, or None where no figures of the device are known);
        ``memory_bytes`` (int, of one rank: what ``peak_memory_bytes`` of ``stats.jsonl`` is
        expected to reach); ``peak_phase``; ``parts`` (str to int bytes: what
        `memory_bytes` is the sum of; ``process`` is Python and its libraries, and
        ``first steps`` what the process grows by in them: both count on a CPU only);
        ``seconds_per_kimg`` (float, or None where `gpu` is);
        ``parameters`` (``G``, ``D``: int); ``checkpoint_bytes`` (int, of one checkpoint).

    Notes
    -----
    For the process that trains, once its networks are made: on a CPU the resident
    size of the process, less all tensors that it holds by then (networks; from ZeRO
    stage 1 on, and after a checkpoint was read, the moments, too), is part of what is
    predicted. The exchange of rows between ranks that share an image is not counted.
    """
    from sunpipe.train.gpus import gpu_here
    from sunpipe.train.ledger import ledger
    from sunpipe.train.meter import networks
    from sunpipe.train.pace import pace

    t = cfg.train
    found = ledger(resolution, channels, t, ranks, device)
    gpu = gpu_here() if device == "cuda" else None
    full = nodes is not None and ranks % nodes == 0
    each = ranks // nodes if nodes is not None and full else ranks
    speed = pace(resolution, channels, t, gpu, ranks, each) if gpu is not None else None
    g, d = networks(resolution, channels, t.model, t.compute)
    parts = found.parts
    if device == "cpu":
        parts["process"] = max(resident_bytes() - tensor_bytes(), 0)
        parts["first steps"] = FIRST_STEPS
    return {
        "schema": 1,
        "by": "phases run on shapes alone: memory by the ledger, seconds by a roofline of the GPU"
        + ("" if full else " (all ranks taken to be in one node)")
        + (" without the exchange of stripes" if t.compute.stripes > 1 else ""),
        "device": device,
        "ranks": ranks,
        "gpu": gpu.name if gpu else None,
        "memory_bytes": sum(parts.values()),
        "peak_phase": found.peak_phase,
        "parts": parts,
        "seconds_per_kimg": speed.seconds_per_kimg if speed else None,
        "parameters": {name: sum(p.numel() for p in net.parameters())
                       for name, net in (("G", g), ("D", d))},
        "checkpoint_bytes": checkpoint_bytes(cfg, resolution, channels),
    }  # fmt: skip


def checkpoint_bytes(cfg: Config, resolution: int, channels: int) -> int:
    """Bytes of one checkpoint: G, D, the average of G, and Adam's two moments of each.

    The headers of its files are counted roughly, some 100 bytes for each tensor.
    """
    from sunpipe.train.meter import networks

    g, d = networks(resolution, channels, cfg.train.model, cfg.train.compute)
    whole, averaged = (
        sum(t.numel() * t.element_size() for t in tensors)
        for tensors in ([*g.state_dict().values(), *d.state_dict().values()],
                        g.state_dict().values())
    )  # fmt: skip
    moments = 2 * sum(p.numel() * p.element_size() for net in (g, d) for p in net.parameters())
    tensors = 2 * len(g.state_dict()) + len(d.state_dict())
    tensors += 2 * sum(1 for net in (g, d) for _ in net.parameters())
    return whole + averaged + moments + TENSOR_HEADER * tensors


def encoder_bytes(cfg: Config, resolution: int, channels: int) -> int | None:
    """Bytes of a checkpoint of ``sunpipe ssl``: encoder, heads, Adam's two moments.

    None for models of timm, which would have to be installed.
    """
    import torch

    from sunpipe.models.backbone import make_backbone
    from sunpipe.train.ssl_methods import make_method

    s = cfg.ssl
    if s.backbone != "residual":
        return None
    with torch.device("meta"):
        encoder = make_backbone(s.backbone, channels, resolution, s.width, s.dim)
        method = make_method(encoder, s)
    whole = sum(one.numel() * one.element_size() for one in method.state_dict().values())
    moments = sum(2 * one.numel() * one.element_size() for one in method.parameters()
                  if one.requires_grad)  # fmt: skip
    return whole + moments


def tensor_bytes() -> int:
    """Bytes of all tensors that this process holds in its own memory, each storage once."""
    import torch

    held: dict[int, int] = {}
    for one in gc.get_objects():
        kind = type(one)  # not isinstance: it would ask lazy modules and proxies
        if issubclass(kind, torch.Tensor) and one.device.type == "cpu":
            storage = one.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def resident_bytes() -> int:
    """Memory that this process holds now, swapped-out pages apart."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _planned(ranks: int) -> dist.Ranks:
    if ranks < 1:
        raise UsageError(f"a training needs at least one rank, not {ranks}")
    return dist.Ranks(0, ranks, 0, "localhost", 0, "planned")


def _half_here() -> bool:
    """Whether the GPU of this machine has units for bfloat16."""
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _memory(gib: float | None) -> int | None:
    """Bytes of a GPU: those given, those of the one here, None without either."""
    import torch

    if gib is not None:
        if not gib > 0:
            raise UsageError(f"the memory of a GPU must be above 0 GiB, not {gib:g}")
        return round(gib * 2**30)
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    return None
