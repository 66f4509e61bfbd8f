"""What a training would be, without starting it."""

from __future__ import annotations

from typing import Any

from sunpipe import dist
from sunpipe.paths import Layout
from sunpipe.run import find_run
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader


def plan_training(cfg: Config) -> dict[str, Any]:
    """Dataset, run folder, ranks and parameter counts of a training."""
    import torch

    from sunpipe.models.stylegan2 import Discriminator, Generator

    layout = Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",))
    info = reader.info
    with torch.device("meta"):
        networks = {
            "G": Generator(info.resolution, len(info.channels), cfg.train.model),
            "D": Discriminator(info.resolution, len(info.channels), cfg.train.model),
        }
    continued = find_run(layout, cfg.name)
    return {
        "images": len(reader),
        "shape": [len(info.channels), info.resolution, info.resolution],
        "parameters": {
            name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
        },
        "ranks": dist.discover().world,
        "continues": continued.name if continued else None,
    }
