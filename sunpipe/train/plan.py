"""What a training would be, without starting it."""

from __future__ import annotations

from typing import Any

from sunpipe import dist
from sunpipe.paths import Layout
from sunpipe.run import find_run
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader


def plan_training(cfg: Config) -> dict[str, Any]:
    """Dataset, run folder, ranks, parameter counts and memory of a training.

    ``memory`` is the ledger of one rank (bytes), ``memory_levers`` what each lever
    would save; ``memory_of_the_device`` and ``suggested`` are given where there is a
    GPU: settings that fit it, None if none do.
    """
    import torch

    from sunpipe.train.advice import explain, suggest
    from sunpipe.train.ledger import Device, ledger
    from sunpipe.train.meter import networks

    layout = Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",))
    info, t = reader.info, cfg.train
    size, channels, ranks = info.resolution, len(info.channels), dist.discover().world
    device: Device = "cuda" if torch.cuda.is_available() else "cpu"
    g, d = networks(size, channels, t.model, t.compute)
    continued = find_run(layout, cfg.name)
    plan: dict[str, Any] = {
        "images": len(reader),
        "shape": [channels, size, size],
        "parameters": {
            name: sum(p.numel() for p in net.parameters()) for name, net in (("G", g), ("D", d))
        },
        "ranks": ranks,
        "continues": continued.name if continued else None,
        "memory": ledger(size, channels, t, ranks, device).as_json(),
        "memory_levers": explain(size, channels, t, ranks, device),
    }
    if device == "cuda":
        free = torch.cuda.get_device_properties(0).total_memory
        found = suggest(size, channels, t, ranks, 0.92 * free, device)
        plan["memory_of_the_device"] = free
        plan["suggested"] = None if found is None else list(found.changes)
    return plan
