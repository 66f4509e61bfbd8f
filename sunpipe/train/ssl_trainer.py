"""SimSiam's model, optimiser and image clock: what a checkpoint of ``sunpipe ssl`` holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from sunpipe import checkpoint
from sunpipe.config import to_dict
from sunpipe.errors import ConfigError
from sunpipe.models.encoder import Encoder, SimSiam
from sunpipe.settings import Config
from sunpipe.shards.loader import to_physical
from sunpipe.shards.normalize import encode
from sunpipe.shards.order import generator_seed
from sunpipe.shards.schema import DatasetInfo
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.ssl_losses import collapse_level, simsiam_loss
from sunpipe.train.ssl_views import random_view


def images_to_show(settings: SslSettings) -> int:
    """`kimg` in images, rounded up to whole batches."""
    return math.ceil(round(settings.kimg * 1000) / settings.batch) * settings.batch


def learning_rate(nimg: int, total: int, settings: SslSettings) -> float:
    """Half a cosine from ``lr * batch / 256`` to 0, pure in the images shown."""
    return settings.lr * settings.batch / 256 * 0.5 * (1 + math.cos(math.pi * nimg / total))


def make_encoder(info: DatasetInfo, settings: SslSettings) -> Encoder:
    """An encoder for this dataset; a size it cannot take is the user's to change."""
    try:
        return Encoder(len(info.channels), info.resolution, settings.width, settings.dim)
    except ValueError as error:
        raise ConfigError(f"dataset {info.name}: {error}; change shard.tile or .reduce") from None


def encoder_card(info: DatasetInfo, settings: SslSettings) -> dict[str, Any]:
    """What one must know beside the weights to use an encoder; `sunpipe.embed.encoder` reads it."""
    return {
        "channels": list(info.channels),
        "units": list(info.units),
        "resolution": info.resolution,
        "width": settings.width,
        "dim": settings.dim,
        "normalize": to_dict(settings.normalize),
        "symmetries": list(settings.symmetries),
    }


class Trainer:
    """Model, optimiser and the clock: what a checkpoint holds."""

    def __init__(self, config: Config, info: DatasetInfo, device: torch.device) -> None:
        settings = config.ssl
        self.settings, self.seed, self.info, self.device = settings, config.seed, info, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_seed(config.seed, 0, 0, "ssl-weights"))
            encoder = make_encoder(info, settings)
            self.model = SimSiam(encoder, settings.hidden)
        self.model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The predictor keeps the full rate to the end (arXiv 2011.10566, table 1 b).
        body = [*self.model.encoder.parameters(), *self.model.projector.parameters()]
        self.optimiser = torch.optim.SGD(
            [{"params": body}, {"params": list(self.model.predictor.parameters())}],
            lr=learning_rate(0, 1, settings),
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.nimg = 0
        self.total = images_to_show(settings)

    def step(self, stored: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Show one batch as stored; returns loss and collapse level, both on the device."""
        stored, mask = (each.to(self.device, non_blocking=True) for each in (stored, mask))
        fields = to_physical(stored, self.info.scale)
        generator = torch.Generator(self.device)
        generator.manual_seed(generator_seed(self.seed, 0, self.nimg, "ssl-views"))
        views = [
            encode(random_view(fields, mask, self.info.channels, self.settings, generator),
                   self.settings.normalize)
            for _ in range(2)
        ]  # fmt: skip
        self.model.train()
        p1, p2, z1, z2 = self.model(*views)
        loss = simsiam_loss(p1, p2, z1, z2)
        self.optimiser.param_groups[0]["lr"] = self.lr
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.nimg += len(fields)
        return loss, (collapse_level(z1) + collapse_level(z2)) / 2

    @property
    def lr(self) -> float:
        """Rate of encoder and projector at this image."""
        return learning_rate(self.nimg, self.total, self.settings)

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.model.named_parameters())

    def save(self, folder: Path) -> Path:
        """Write a checkpoint: encoder, heads, momentum, state."""
        whole = self.model.state_dict()
        momentum = {
            name: self.optimiser.state[parameter]["momentum_buffer"]
            for name, parameter in self._parameters().items()
            if self.optimiser.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        tensors = {
            "encoder": self.model.encoder.state_dict(),
            "heads": {k: v for k, v in whole.items() if not k.startswith("encoder.")},
            "optimizer": momentum,
        }
        state = {"kind": "ssl", "encoder": encoder_card(self.info, self.settings),
                 "made_of": encoder_card(self.info, self.settings)}  # fmt: skip
        return checkpoint.save(folder, self.nimg, tensors, state, self.settings.keep_checkpoints)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint, to the bit."""
        state = checkpoint.load_state(path)
        checkpoint.check_made_of(path, state, encoder_card(self.info, self.settings))
        self.nimg = state["nimg"]
        encoder = checkpoint.load_tensors(path, "encoder")
        named = {f"encoder.{key}": value for key, value in encoder.items()}
        self.model.load_state_dict({**named, **checkpoint.load_tensors(path, "heads")})
        momentum = checkpoint.load_tensors(path, "optimizer")
        for name, parameter in self._parameters().items():
            if name in momentum:
                # Laid out as the weight is, so that the update rounds as it did.
                buffer = torch.empty_like(parameter, requires_grad=False)
                self.optimiser.state[parameter]["momentum_buffer"] = buffer.copy_(momentum[name])
