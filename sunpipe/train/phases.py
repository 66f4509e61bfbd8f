"""The four phases of a StyleGAN2 iteration: whole losses, penalties included.

``GeneratorPhases`` holds G and borrows D; ``DiscriminatorPhases`` holds D and
is given images. Lazy regularisation (arXiv:1912.04958, section 3.1): R1 every
`r1_interval`, path length every `pl_interval` iterations, each multiplied by
its interval.
"""

from __future__ import annotations

import torch
from torch import nn

from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.augment import diffaugment
from sunpipe.train.losses import (
    discriminator_loss,
    generator_loss,
    path_lengths,
    r1_penalty,
)
from sunpipe.train_settings import TrainSettings

Observed = dict[str, torch.Tensor]


def mix_styles(
    generator: Generator, z: torch.Tensor, z2: torch.Tensor, probability: float
) -> torch.Tensor:
    """w_plus (B, num_ws, w_dim); per sample, layers from a random cutoff on come from `z2`.

    Style mixing, arXiv:1812.04948 section 3.1. With ``1 - probability`` a sample
    is not mixed.
    """
    w_plus = generator.broadcast(generator.mapping(z))
    if probability <= 0:
        return w_plus
    count, layers = len(z), generator.num_ws
    cutoff = torch.randint(1, layers, (count, 1), device=z.device)
    mixed = torch.rand(count, 1, device=z.device) < probability
    cutoff = torch.where(mixed, cutoff, torch.full_like(cutoff, layers))
    second = generator.broadcast(generator.mapping(z2))
    from_second = torch.arange(layers, device=z.device)[None] >= cutoff
    return torch.where(from_second[:, :, None], second, w_plus)


def touch(module: nn.Module) -> torch.Tensor:
    """Zero that depends on every parameter.

    A penalty leaves some parameters (the last biases) without a gradient, and
    ZeRO with offload fails on a missing one. A gradient of zero does not move a
    parameter, because beta1 is 0; its second moment decays as in ZeRO's flat
    partitions at every stage.
    """
    return sum((p.sum() for p in module.parameters()), torch.zeros(())) * 0.0


class GeneratorPhases(nn.Module):
    """Losses of G: ``main`` and ``path``.

    Attributes
    ----------
    pl_mean : Tensor, shape (1,)
        Running mean of path lengths.
    """

    pl_mean: torch.Tensor

    def __init__(self, generator: Generator, discriminator: Discriminator, cfg: TrainSettings):
        super().__init__()
        self.generator = generator
        self.register_buffer("pl_mean", torch.zeros(1))
        self.cfg = cfg
        self._borrowed = (discriminator,)  # in a tuple: not a submodule, not our parameters

    def forward(
        self, phase: str, z: torch.Tensor, z2: torch.Tensor
    ) -> tuple[torch.Tensor, Observed]:
        """Loss of a phase and what is worth watching."""
        return self._main(z, z2) if phase == "main" else self._path(z, z2)

    def _main(self, z: torch.Tensor, z2: torch.Tensor) -> tuple[torch.Tensor, Observed]:
        w_plus = mix_styles(self.generator, z, z2, self.cfg.style_mixing)
        image = self.generator.synthesis(w_plus)
        logits = self._borrowed[0](diffaugment(image, self.cfg.diffaugment))
        loss = generator_loss(logits)
        return loss, {"loss_G": loss.detach(), "w_mean": w_plus[:, 0].detach().mean(dim=0)}

    def _path(self, z: torch.Tensor, z2: torch.Tensor) -> tuple[torch.Tensor, Observed]:
        w_plus = mix_styles(self.generator, z, z2, self.cfg.style_mixing)
        synthesis = self.generator.synthesis
        size, channels = synthesis.sizes[-1], synthesis.channels
        noise = torch.randn(len(z), channels, size, size, device=z.device)
        lengths = path_lengths(synthesis, w_plus, noise)
        mean = torch.lerp(self.pl_mean, lengths.detach().mean(), self.cfg.pl_decay)
        penalty = (lengths - mean).square().mean()
        loss = penalty * (self.cfg.pl_weight * self.cfg.pl_interval) + touch(self)
        return loss, {"pl_penalty": penalty.detach(), "pl_mean": mean}


class DiscriminatorPhases(nn.Module):
    """Losses of D: ``main`` and ``r1``."""

    def __init__(self, discriminator: Discriminator, cfg: TrainSettings) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.cfg = cfg

    def _logits(self, image: torch.Tensor) -> torch.Tensor:
        return self.discriminator(diffaugment(image, self.cfg.diffaugment))

    def forward(
        self, phase: str, real: torch.Tensor, fake: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Observed]:
        """Loss of a phase and what is worth watching."""
        if phase == "r1":
            penalty = r1_penalty(self._logits, real)
            loss = penalty * (self.cfg.r1_gamma / 2 * self.cfg.r1_interval) + touch(self)
            return loss, {"r1_penalty": penalty.detach()}
        assert fake is not None
        fake_logits, real_logits = self._logits(fake), self._logits(real)
        loss = discriminator_loss(real_logits, fake_logits)
        return loss, {
            "loss_D": loss.detach(),
            "logits_real": real_logits.detach().mean(),
            "logits_fake": fake_logits.detach().mean(),
        }
