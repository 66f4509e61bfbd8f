"""A method, its engine and the image clock: what a checkpoint of ``sunpipe ssl`` holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sunpipe import checkpoint
from sunpipe.config import to_dict
from sunpipe.dist import Ranks
from sunpipe.errors import ConfigError
from sunpipe.models.backbone import make_backbone
from sunpipe.settings import Config
from sunpipe.shards.loader import to_physical
from sunpipe.shards.normalize import encode
from sunpipe.shards.order import generator_seed
from sunpipe.shards.schema import DatasetInfo
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.chance import Chance
from sunpipe.train.engine import Engine
from sunpipe.train.ssl_methods import Seen, make_method
from sunpipe.train.ssl_norm import over_ranks
from sunpipe.train.ssl_views import draw_view
from sunpipe.train_settings import ZeroSettings

# Encoders are small: what ZeRO would share out is less than the activations of one patch.
WHOLE = ZeroSettings(stage=0, offload=False)
BETA2 = 0.999  # of Adam, as in arXiv:1412.6980


def images_to_show(settings: SslSettings) -> int:
    """`kimg` in images, rounded up to whole batches."""
    return math.ceil(round(settings.kimg * 1000) / settings.batch) * settings.batch


def learning_rate(nimg: int, total: int, settings: SslSettings) -> float:
    """Up to ``lr * batch / 256`` over `warm_up`, then half a cosine to 0; pure in the images."""
    share, top = nimg / total, settings.lr * settings.batch / 256
    if share < settings.warm_up:
        # not from 0: the first batch is shown for something
        return top * (nimg + settings.batch) / (settings.warm_up * total + settings.batch)
    return top * 0.5 * (1 + math.cos(math.pi * (share - settings.warm_up) / (1 - settings.warm_up)))


def make_encoder(info: DatasetInfo, settings: SslSettings, fresh: bool = True) -> nn.Module:
    """An encoder for this dataset; what it cannot take is the user's to change.

    Parameters
    ----------
    fresh : bool
        Read ``ssl.weights``; a run that continues has its own.
    """
    weights = Path(settings.weights) if settings.weights and fresh else None
    try:
        return make_backbone(
            settings.backbone, len(info.channels), info.resolution, settings.width, settings.dim,
            weights,
        )  # fmt: skip
    except ValueError as error:
        hint = "; change shard.tile or .reduce" if "powers of two" in str(error) else ""
        raise ConfigError(f"dataset {info.name}: {error}{hint}") from None


def network_card(info: DatasetInfo, settings: SslSettings, dim: int) -> dict[str, Any]:
    """What one must know beside the weights to use an encoder; `sunpipe.embed.encoder` reads it."""
    return {
        "method": settings.method,
        "backbone": settings.backbone,
        "channels": list(info.channels),
        "units": list(info.units),
        "resolution": info.resolution,
        "width": settings.width,
        "dim": dim,
        "normalize": to_dict(settings.normalize),
        "symmetries": list(settings.symmetries),
    }


class Trainer:
    """A method and its engine on one rank.

    Parameters
    ----------
    pixel_cm : float
        Median side of a pixel of the patches it learns from, cm: kept beside the weights.
    start : Path, optional
        Checkpoint to continue from, written at any number of ranks.
    """

    def __init__(
        self, config: Config, info: DatasetInfo, pixel_cm: float, ranks: Ranks,
        device: torch.device, start: Path | None = None,
    ) -> None:  # fmt: skip
        settings = config.ssl
        self.settings, self.seed, self.info = settings, config.seed, info
        self.pixel_cm, self.ranks, self.device, self.nimg = pixel_cm, ranks, device, 0
        self.total = images_to_show(settings)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_seed(config.seed, 0, 0, "ssl-weights"))
            encoder = make_encoder(info, settings, fresh=start is None)
            self.dim = cast(int, encoder.dim)
            self.method = make_method(encoder, settings, ranks.world)
        if start is not None:
            self._restore(start)
        over_ranks(self.method.to(device), ranks.world, device).train()
        self.engine = Engine(
            self.method, lr=self.lr, beta1=settings.momentum, beta2=BETA2,
            weight_decay=settings.weight_decay, zero=WHOLE, ranks=ranks,
            micro_batch=settings.batch // ranks.world,
        )  # fmt: skip
        if start is not None:
            self.engine.load_optimizer_state(checkpoint.load_tensors(start, "optimizer"))

    def _views(self, stored: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Two views of this rank's patches, in network range."""
        stored, mask = (each.to(self.device, non_blocking=True) for each in (stored, mask))
        info, settings = self.info, self.settings
        fields = to_physical(stored, info.scale)
        places = range(self.ranks.rank, settings.batch, self.ranks.world)
        return tuple(
            encode(
                draw_view(
                    fields, mask, info.channels, info.units, settings,
                    Chance.of(self.seed, self.nimg, f"ssl-{name}", places, self.device),
                ),
                settings.normalize,
            )
            for name in ("one", "two")
        )  # fmt: skip

    def step(self, stored: torch.Tensor, mask: torch.Tensor) -> Seen:
        """Show one batch, this rank's part of it as stored; what was seen, on the device."""
        views = self._views(stored, mask)
        self.engine.set_lr(self.lr)
        seen = self.engine.step("views", [views])
        self.nimg += self.settings.batch
        self.method.after_step(self.nimg / self.total)
        return seen

    @property
    def lr(self) -> float:
        """Learning rate at this image."""
        return learning_rate(self.nimg, self.total, self.settings)

    def state(self) -> tuple[dict[str, checkpoint.Tensors], dict[str, Any]]:
        """Tensors and JSON-able state of a checkpoint; every rank must call it."""
        whole, kept = self.method.state_dict(), self.method.kept
        card = network_card(self.info, self.settings, self.dim)
        tensors: dict[str, checkpoint.Tensors] = {
            "encoder": {k.removeprefix(kept): v for k, v in whole.items() if k.startswith(kept)},
            "heads": {k: v for k, v in whole.items() if not k.startswith(kept)},
            "optimizer": self.engine.optimizer_state(),
        }
        return tensors, {
            "kind": "ssl", "encoder": {**card, "pixel_cm": self.pixel_cm}, "made_of": card,
            "world": self.ranks.world,
        }  # fmt: skip

    def _restore(self, start: Path) -> None:
        state = checkpoint.load_state(start)
        checkpoint.check_made_of(start, state, network_card(self.info, self.settings, self.dim))
        self.nimg = state["nimg"]
        encoder = checkpoint.load_tensors(start, "encoder")
        named = {f"{self.method.kept}{key}": value for key, value in encoder.items()}
        self.method.load_state_dict({**named, **checkpoint.load_tensors(start, "heads")})
