"""SimSiam, VICReg and DINO as phases of the engine: two views in, a loss and what was seen out."""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import nn

from sunpipe.models.ssl_heads import DinoHead, expander, predictor, projector
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.means import mean_over_ranks
from sunpipe.train.ssl_losses import (
    collapse_level,
    dino_loss,
    dino_spread,
    reachable_deviation,
    simsiam_loss,
    vicreg_terms,
)

Tensor = torch.Tensor
Seen = dict[str, Tensor]
ENOUGH = 0.1  # of the information that DINO's outputs could hold


class Method(nn.Module):
    """What all methods share: an encoder that is trained, and one that is kept.

    ``forward("views", one, two)`` returns the loss and what was seen of this rank's
    samples, among it ``collapse``: 0 for outputs as different as they can be, 1 for
    one output for all.

    Attributes
    ----------
    kept : str
        Prefix of the encoder that embeds later on.
    """

    kept = "encoder."

    def __init__(self, encoder: nn.Module, settings: SslSettings, world: int) -> None:
        super().__init__()
        self.encoder, self.settings, self.world = encoder, settings, world

    def _mean(self, x: Tensor) -> Tensor:
        return mean_over_ranks(x, self.world)

    def after_step(self, share: float) -> None:
        """Follow the weights after an update, `share` of the run being done."""


class SimSiam(Method):
    """Two views predict each other (Chen and He 2020, arXiv 2011.10566)."""

    def __init__(self, encoder: nn.Module, settings: SslSettings, world: int = 1) -> None:
        super().__init__(encoder, settings, world)
        self.projector = projector(cast(int, encoder.dim), settings.hidden)
        self.predictor = predictor(settings.hidden)

    def forward(self, phase: str, one: Tensor, two: Tensor) -> tuple[Tensor, Seen]:
        """Loss and collapse level of the projections."""
        z1, z2 = self.projector(self.encoder(one)), self.projector(self.encoder(two))
        loss = simsiam_loss(self.predictor(z1), self.predictor(z2), z1, z2)
        with torch.no_grad():
            level = sum(collapse_level(z, self._mean) for z in (z1, z2)) / 2
        return loss, {"loss": loss.detach(), "collapse": torch.as_tensor(level)}


class Vicreg(Method):
    """Invariance beside variance and covariance of the batch (arXiv 2105.04906).

    Collapse is what the mean deviation of a coordinate lacks of the one that its loss
    can reach with this many samples and coordinates (`reachable_deviation`): 1 only
    where there are no more coordinates than samples to tell them apart. The outputs
    have no fixed length or centre, so that directions alone tell nothing.
    """

    def __init__(self, encoder: nn.Module, settings: SslSettings, world: int = 1) -> None:
        super().__init__(encoder, settings, world)
        self.expander = expander(cast(int, encoder.dim), settings.hidden)

    def forward(self, phase: str, one: Tensor, two: Tensor) -> tuple[Tensor, Seen]:
        """Loss, its three terms, and what the deviations lack of what they can be."""
        z1, z2 = self.expander(self.encoder(one)), self.expander(self.encoder(two))
        invariance, variance, covariance, deviation = vicreg_terms(z1, z2, self.world, self._mean)
        of = self.settings.vicreg
        loss = of.invariance * invariance + of.variance * variance + of.covariance * covariance
        best = reachable_deviation(len(z1) * self.world, z1.shape[1], of.variance, of.covariance)
        return loss, {
            "loss": loss.detach(), "collapse": (1 - deviation / best).clamp(min=0),
            "invariance": invariance.detach(), "variance": variance.detach(),
            "covariance": covariance.detach(),
        }  # fmt: skip


class Dino(Method):
    """A student matches a teacher that follows it (Caron et al. 2021, arXiv 2104.14294).

    The teacher's encoder is kept: it embeds better than the student's (section 5.2).
    Its batch norm sees its own batches. Collapse is seen in the information of the
    teacher's outputs (`dino_spread`): 1 where they tell nothing, 0 from a tenth of the
    most they could tell on. A training begins with about a tenth and reaches a third.
    """

    kept = "teacher.0."

    def __init__(self, encoder: nn.Module, settings: SslSettings, world: int = 1) -> None:
        super().__init__(encoder, settings, world)
        of = settings.dino
        self.head = DinoHead(cast(int, encoder.dim), settings.hidden, of.bottleneck, of.outputs)
        self.teacher = nn.Sequential(copy.deepcopy(encoder), copy.deepcopy(self.head))
        self.teacher.requires_grad_(False)
        self.center: Tensor
        self.register_buffer("center", torch.zeros(of.outputs))

    def forward(self, phase: str, one: Tensor, two: Tensor) -> tuple[Tensor, Seen]:
        """Loss, information and sharpness of the teacher's outputs; moves the centre."""
        of = self.settings.dino
        with torch.no_grad():
            teacher = self.teacher(one), self.teacher(two)
        student = self.head(self.encoder(one)), self.head(self.encoder(two))
        loss, probabilities = dino_loss(
            teacher, student, self.center.clone(), of.teacher_temperature, of.student_temperature
        )
        with torch.no_grad():
            information, sharpness = dino_spread(probabilities, self.world, self._mean)
            # equation 4: the mean of both views and all ranks
            batch = self._mean(torch.stack([t.mean(dim=0) for t in teacher]).mean(dim=0))
            self.center.lerp_(batch, 1 - of.center_momentum)
        return loss, {
            "loss": loss.detach(), "collapse": (1 - information / ENOUGH).clamp(min=0),
            "information": information, "sharpness": sharpness,
        }  # fmt: skip

    @torch.no_grad()
    def after_step(self, share: float) -> None:
        """Teacher after student: momentum to 1 along half a cosine (section 3.1)."""
        start = self.settings.dino.momentum
        momentum = 1 - (1 - start) * (1 + math.cos(math.pi * share)) / 2
        student = (*self.encoder.parameters(), *self.head.parameters())
        torch._foreach_lerp_(tuple(self.teacher.parameters()), student, 1 - momentum)


METHODS: dict[str, type[Method]] = {"simsiam": SimSiam, "vicreg": Vicreg, "dino": Dino}


def make_method(encoder: nn.Module, settings: SslSettings, world: int = 1) -> Method:
    """The method of these settings around an encoder."""
    return METHODS[settings.method](encoder, settings, world)
