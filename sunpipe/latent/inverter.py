"""The inversion encoder: a network that says at once where in the cloud a patch lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from sunpipe.errors import DataError
from sunpipe.latent.cloud import Cloud
from sunpipe.latent.misfit import FieldMisfit, quiet_noise, show
from sunpipe.models.encoder import SMALLEST, Encoder
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import encode
from sunpipe.shards.order import generator_seed

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise

WIDTH, DIM = 32, 128
LARGEST = 64  # pixels a side that the network sees: enough for a place to start from
INPUT = NormalizeSettings()  # asinh, so that plage and spots are both seen
LR, BETAS = 2e-3, (0.9, 0.99)
BATCH = 32
HELD_OUT = 256  # patches that are never trained with: their numbers are beyond all of training
LATENT = 0.1  # weight of the error in the cloud beside the misfit of the field
WARMUP = 0.05  # share of the images over which the learning rate rises


class Inverter(nn.Module):
    """Patches to cloud coordinates.

    The features keep their 4 x 4 places: where a spot stands is half of what a w says.

    Parameters
    ----------
    channels, resolution : int
        Of the generator; images beyond 64 pixels a side are averaged down to that.
    dim : int
        Axes of the cloud.
    """

    def __init__(self, channels: int, resolution: int, dim: int) -> None:
        super().__init__()
        self.factor = max(1, resolution // LARGEST)
        if resolution < SMALLEST:
            raise DataError(
                f"the inversion encoder takes patches from {SMALLEST} pixels a side,"
                f" the generator makes {resolution}"
            )
        self.encoder = Encoder(channels, resolution // self.factor, WIDTH, DIM)
        self.head = nn.Linear(DIM * 16, dim)

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Fields (B, C, H, H) in gauss, 0 where invalid, to coordinates (B, dim)."""
        x = encode(functional.avg_pool2d(fields, self.factor), INPUT)
        x = x.contiguous(memory_format=torch.channels_last)
        x = torch.relu(self.encoder.norm(self.encoder.stem(x)))
        return self.head(self.encoder.stages(x).flatten(1))


@dataclass(frozen=True)
class Pairs:
    """Generated patches of known latents, without end: number n is pure in (seed, n)."""

    generator: Generator
    cloud: Cloud
    noise: Noise
    psi: float
    seed: int

    def draw(self, start: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cloud coordinates (B, K) and fields (B, C, H, H) of pairs `start` and following."""
        z = self.generator.sample_z(count, generator_seed(self.seed, 0, 0, "pairs"), start)
        w = self.generator.map(z, self.psi)
        return self.cloud.to_u(w), self.generator.fields(w, self.noise)

    def observed(self, fields: torch.Tensor, start: int) -> torch.Tensor:
        """`fields` with quiet noise, as if observed: a real patch has it, a generated one less."""
        source = torch.Generator().manual_seed(generator_seed(self.seed, 0, start, "observe"))
        noise = torch.randn(fields.shape, generator=source).to(fields.device)
        return fields + noise * quiet_noise(self.generator.channels).to(fields.device)


def loss(network: Inverter, pairs: Pairs, start: int, count: int) -> torch.Tensor:
    """Squared error in the cloud, and misfit of the field that the answer makes.

    The first alone weighs directions that no pixel shows as much as those that move the
    spots; the second alone has many minima.
    """
    u, fields = pairs.draw(start, count)
    found = network(pairs.observed(fields, start))
    shown = show(pairs.generator, pairs.cloud.to_w(found), pairs.noise)
    whole = torch.ones_like(fields[:, :1])
    misfit = FieldMisfit(fields, whole, quiet_noise(pairs.generator.channels).to(fields.device))
    return LATENT * (found - u).square().mean() + misfit(shown).mean()


def rate(shown: int, total: int) -> float:
    """Learning rate after `shown` of `total` images: a linear rise, then half a cosine."""
    part = shown / total
    if part < WARMUP:
        return LR * (shown + BATCH) / (WARMUP * total + BATCH)
    return LR * 0.5 * (1 + math.cos(math.pi * (part - WARMUP) / (1 - WARMUP)))


@torch.no_grad()
def held_out(network: Inverter, pairs: Pairs) -> dict[str, float]:
    """Errors on patches that were not trained with.

    Returns
    -------
    dict
        ``latent_rms``: error in the cloud, 1 for a guess of the centre; ``misfit`` and
        ``rms_g``: of the field in noise and in gauss; ``rms_centre_g``: of the centre's field.
    """
    network.eval()
    sigma = quiet_noise(pairs.generator.channels).to(pairs.generator.device)
    centre = show(pairs.generator, pairs.cloud.centre[None], pairs.noise)
    sums = torch.zeros(4, dtype=torch.float64)
    for start in range(0, HELD_OUT, BATCH):
        number = 2**40 + start  # beyond what any training shows
        u, fields = pairs.draw(number, BATCH)
        found = network(pairs.observed(fields, number))
        shown = show(pairs.generator, pairs.cloud.to_w(found), pairs.noise)
        misfit = FieldMisfit(fields, torch.ones_like(fields[:, :1]), sigma)
        parts = ((found - u).square().mean(), misfit(shown).mean(),
                 (shown - fields).square().mean(), (centre - fields).square().mean())  # fmt: skip
        sums += torch.stack(parts).double().cpu() * BATCH / HELD_OUT
    network.train()
    return {"latent_rms": float(sums[0].sqrt()), "misfit": float(sums[1]),
            "rms_g": float(sums[2].sqrt()), "rms_centre_g": float(sums[3].sqrt())}  # fmt: skip
