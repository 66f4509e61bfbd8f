"""The phases of a StyleGAN2 iteration: whole losses, penalties included.

``GeneratorPhases`` holds G and borrows D; ``DiscriminatorPhases`` holds D and
is given images. Lazy regularisation (arXiv:1912.04958, section 3.1): a penalty
that is due every n-th iteration is a phase of its own, multiplied by n; one
that is due in every iteration is part of the main phase.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.ada import count_signs
from sunpipe.train.augment import augment
from sunpipe.train.chance import Chance
from sunpipe.train.losses import adversarial, needs_real, path_lengths, r1_penalty
from sunpipe.train.means import mean_over_ranks
from sunpipe.train_settings import TrainSettings

Observed = dict[str, torch.Tensor]


def lazy_penalty(weight: float, interval: int) -> bool:
    """Whether a penalty is a phase of its own."""
    return weight > 0 and interval > 1


def lazy_ratio(weight: float, interval: int) -> float:
    """Factor of the learning rate and exponent of beta2 that make up for the penalty's steps.

    arXiv:1912.04958, appendix B: ``n / (n + 1)`` when every n-th iteration takes a
    second step, else 1.
    """
    return interval / (interval + 1) if lazy_penalty(weight, interval) else 1.0


def mix_styles(generator: Generator, chance: Chance, probability: float) -> torch.Tensor:
    """w_plus (B, num_ws, w_dim); per sample, layers from a random cutoff on come from a second z.

    Style mixing, arXiv:1812.04948 section 3.1. With ``1 - probability`` a sample
    is not mixed.
    """
    z_dim, layers = generator.mapping.z_dim, generator.num_ws
    w_plus = generator.broadcast(generator.mapping(chance.normal("z", z_dim)))
    if probability <= 0:
        return w_plus
    cutoff = chance.integers("cutoff", 1, layers)
    cutoff = torch.where(chance.uniform("mix") < probability, cutoff, layers)
    second = generator.broadcast(generator.mapping(chance.normal("z2", z_dim)))
    from_second = torch.arange(layers, device=chance.device)[None] >= cutoff[:, None]
    return torch.where(from_second[:, :, None], second, w_plus)


def touch(module: nn.Module) -> torch.Tensor:
    """Zero that depends on every parameter that is trained.

    A penalty leaves some parameters (the last biases) without a gradient, and
    ZeRO with offload fails on a missing one. A gradient of zero does not move a
    parameter, because beta1 is 0; its second moment decays as in ZeRO's flat
    partitions at every stage.
    """
    trained = (p for p in module.parameters() if p.requires_grad)
    return sum((p.sum() for p in trained), torch.zeros(())) * 0.0


class GeneratorPhases(nn.Module):
    """Losses of G: ``main`` and ``path``.

    Parameters
    ----------
    world : int
        Ranks whose samples make one batch.

    Attributes
    ----------
    pl_mean : Tensor, shape (1,)
        Running mean of path lengths.
    """

    pl_mean: torch.Tensor

    def __init__(
        self, generator: Generator, discriminator: Discriminator, train: TrainSettings,
        world: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.generator, self.train_settings, self.world = generator, train, world
        self.register_buffer("pl_mean", torch.zeros(1))
        self._borrowed = (discriminator,)  # in a tuple: not a submodule, not our parameters
        _, self._loss = adversarial(train.loss, partial(mean_over_ranks, world=world))

    def forward(
        self, phase: str, chance: Chance, real: torch.Tensor | None = None,
        p: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Observed]:  # fmt: skip
        """Loss of a phase and what is worth watching.

        Parameters
        ----------
        phase : {"main", "path"}
        chance : Chance
            Of B samples.
        real : Tensor, shape (B, C, H, H), optional
            In network range, for the losses that compare with real images.
        p : Tensor of shape (), optional
            Probability of each augmentation; without it all are applied.
        """
        if phase == "path":
            loss, seen = self._path(chance)
            return loss + touch(self), seen
        loss, seen = self._main(chance, real, p)
        t = self.train_settings
        if t.pl_weight > 0 and not lazy_penalty(t.pl_weight, t.pl_interval):
            penalty, more = self._path(chance.child("path").first(self.path_count(len(chance))))
            return loss + penalty, seen | more
        return loss, seen

    def path_count(self, batch: int) -> int:
        """Samples of the path-length pass for `batch` samples."""
        return max(batch // self.train_settings.pl_batch_shrink, 1)

    def _main(
        self, chance: Chance, real: torch.Tensor | None, p: torch.Tensor | None
    ) -> tuple[torch.Tensor, Observed]:
        t, discriminator = self.train_settings, self._borrowed[0]
        w_plus = mix_styles(self.generator, chance, t.style_mixing)
        image = self.generator.synthesis(w_plus, chance.noise("layers"))

        def logits(x: torch.Tensor, name: str) -> torch.Tensor:
            return discriminator(augment(x, t.diffaugment, t.normalize.zero, chance.child(name), p))

        fake_logits = logits(image, "augment")
        real_logits = None
        if needs_real(t.loss):
            assert real is not None
            with torch.no_grad():  # D is not trained here, and G has no part in it
                real_logits = logits(real, "augment real")
        loss = self._loss(fake_logits, real_logits)
        return loss, {"loss_G": loss.detach(), "w_mean": w_plus[:, 0].detach().mean(dim=0)}

    def _path(self, chance: Chance) -> tuple[torch.Tensor, Observed]:
        t, synthesis = self.train_settings, self.generator.synthesis
        w_plus = mix_styles(self.generator, chance, t.style_mixing)
        size, channels = synthesis.sizes[-1], synthesis.channels
        target = chance.maps("target", channels, size, size)
        lengths = path_lengths(lambda w: synthesis(w, chance.noise("layers")), w_plus, target)
        with torch.no_grad():
            lately = mean_over_ranks(lengths.mean(), self.world)
            mean = torch.lerp(self.pl_mean, lately, t.pl_decay)
        penalty = (lengths - mean).square().mean()
        loss = penalty * (t.pl_weight * t.pl_interval)
        return loss, {"pl_penalty": penalty.detach(), "pl_mean": mean}


class DiscriminatorPhases(nn.Module):
    """Losses of D: ``main`` and ``penalty``."""

    def __init__(self, discriminator: Discriminator, train: TrainSettings, world: int = 1) -> None:
        super().__init__()
        self.discriminator, self.train_settings = discriminator, train
        self._loss, _ = adversarial(train.loss, partial(mean_over_ranks, world=world))

    def _augmented(
        self, image: torch.Tensor, chance: Chance, p: torch.Tensor | None
    ) -> torch.Tensor:
        t = self.train_settings
        return augment(image, t.diffaugment, t.normalize.zero, chance, p)

    def forward(
        self, phase: str, real: torch.Tensor, fake: torch.Tensor, chance: Chance,
        p: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Observed]:  # fmt: skip
        """Loss of a phase and what is worth watching.

        Parameters
        ----------
        phase : {"main", "penalty"}
        real, fake : Tensor, shape (B, C, H, H)
            In network range.
        chance : Chance
            Of the B samples, for the augmentation.
        p : Tensor of shape (), optional
            Probability of each augmentation; without it all are applied.
        """
        if phase == "penalty":
            loss, seen = self._penalty(real, fake, chance, p)
            return loss + touch(self), seen
        loss, seen = self._main(real, fake, chance, p)
        t = self.train_settings
        weight = t.r1_gamma + t.r2_gamma
        if weight > 0 and not lazy_penalty(weight, t.r1_interval):
            count = self.penalty_count(len(chance))
            few = chance.child("penalty").first(count)
            penalty, more = self._penalty(real[:count], fake[:count], few, p)
            return loss + penalty, seen | more
        return loss, seen

    def _main(
        self, real: torch.Tensor, fake: torch.Tensor, chance: Chance, p: torch.Tensor | None
    ) -> tuple[torch.Tensor, Observed]:
        network = self.discriminator
        fake_logits = network(self._augmented(fake, chance.child("fake"), p))
        real_logits = network(self._augmented(real, chance.child("real"), p))
        loss = self._loss(real_logits, fake_logits)
        return loss, {
            "loss_D": loss.detach(),
            "logits_real": real_logits.detach().mean(),
            "logits_fake": fake_logits.detach().mean(),
            "signs": count_signs(real_logits).double(),
        }

    def penalty_count(self, batch: int) -> int:
        """Samples of the penalties for `batch` samples."""
        return max(batch // self.train_settings.r1_batch_shrink, 1)

    def _penalty(
        self, real: torch.Tensor, fake: torch.Tensor, chance: Chance, p: torch.Tensor | None
    ) -> tuple[torch.Tensor, Observed]:
        t = self.train_settings
        loss, seen = torch.zeros((), device=real.device), {}
        for name, gamma, image in (("r1", t.r1_gamma, real), ("r2", t.r2_gamma, fake)):
            if gamma > 0:
                penalty = r1_penalty(partial(self._logits, chance.child(name), p), image)
                loss = loss + penalty * (gamma / 2 * t.r1_interval)
                seen[f"{name}_penalty"] = penalty.detach()
        return loss, seen

    def _logits(self, chance: Chance, p: torch.Tensor | None, image: torch.Tensor) -> torch.Tensor:
        return self.discriminator(self._augmented(image, chance, p))
