"""What a training would be, without starting it."""

from __future__ import annotations

from typing import Any

from sunpipe import dist
from sunpipe.errors import UsageError
from sunpipe.paths import Layout
from sunpipe.run import find_run
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader


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
        Memory of one of these GPUs.

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
        found = suggest(size, channels, t, world, 0.92 * memory, device)
        plan["memory_of_the_device"] = memory
        plan["suggested"] = None if found is None else list(found.changes)
    return plan


def _planned(ranks: int) -> dist.Ranks:
    if ranks < 1:
        raise UsageError(f"a training needs at least one rank, not {ranks}")
    return dist.Ranks(0, ranks, 0, "localhost", 0, "planned")


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
