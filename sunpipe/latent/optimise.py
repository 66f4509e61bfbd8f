"""Move several latents at once until the generator makes the observed patch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sunpipe.errors import DataError
from sunpipe.invert_settings import InvertSettings
from sunpipe.latent.cloud import Cloud
from sunpipe.latent.misfit import FieldMisfit, KeywordMisfit, show

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise

Tensor = torch.Tensor
RAMP_UP, RAMP_DOWN = 0.05, 0.25  # shares of the steps: arXiv:1912.04958, appendix D
BETAS = (0.9, 0.999)


def ramp(step: int, steps: int) -> float:
    """Share of the learning rate at a step: up linearly, down by half a cosine."""
    part = (step + 0.5) / steps
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - part) / RAMP_DOWN))
    return down * min(1.0, part / RAMP_UP)


@dataclass(frozen=True)
class Criterion:
    """What is minimised: misfit of the field, plus weighted prior, plus weighted keywords.

    The prior is half the mean square of the cloud coordinates (of all layers in w_plus): half
    the squared Mahalanobis distance per dimension.
    """

    generator: Generator
    cloud: Cloud
    noise: Noise
    field: FieldMisfit
    keyword: KeywordMisfit
    prior: float
    keywords: float

    def fields(self, u: Tensor) -> Tensor:
        """What the generator makes of u, (S, K) or (S, num_ws, K): gauss, (S, C, H, H)."""
        return show(self.generator, self.cloud.to_w(u), self.noise)

    def parts(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """``total`` and its three terms before weighting, (S,) each, and what to descend.

        The second has the gradient of the total, not its value: that of the keywords is
        brought in at the fields, where it can be looked at.
        """
        shown = self.fields(u)
        terms = {"field": self.field(shown), "prior": 0.5 * u.square().flatten(1).mean(dim=1)}
        slope = terms["field"] + self.prior * terms["prior"]
        terms["keywords"], pull = self.keyword.pull(shown)
        if self.keywords:
            slope = slope + self.keywords * (shown * pull).flatten(1).sum(dim=1)
        total = terms["field"] + self.prior * terms["prior"] + self.keywords * terms["keywords"]
        return {"total": total, **terms}, slope


@dataclass(frozen=True)
class Optimised:
    """Latents after the search.

    Attributes
    ----------
    u : Tensor, shape (S, K) or (S, num_ws, K)
        Of each start the point with the least total.
    first, best : dict of str to Tensor (S,)
        Total and terms at the start and at `u`.
    at : list of int
        Step of each best.
    dropped : list of int
        Steps of each start whose gradient was not finite and was not used.
    """

    u: Tensor
    first: dict[str, Tensor]
    best: dict[str, Tensor]
    at: list[int]
    dropped: list[int]


def _check(total: Tensor) -> None:
    if not bool(total.isfinite().any()):
        raise DataError("no start gives a finite misfit; the generator makes no numbers there")


def optimise(
    criterion: Criterion, starts: Tensor, settings: InvertSettings, poll: Callable[[], None]
) -> Optimised:
    """Adam on all starts in one batch; each start is its own problem.

    A start whose gradient is not finite at a step stays where it is for that step. The best
    point of every start is kept, so that no step can make the answer worse.

    Parameters
    ----------
    starts : Tensor, (S, K) or (S, num_ws, K)
        Cloud coordinates.
    poll : callable
        Called before every step; may raise.

    Raises
    ------
    DataError
        No start gives a finite misfit.
    """
    u = starts.clone().requires_grad_(True)
    adam = torch.optim.Adam([u], lr=settings.lr, betas=BETAS)
    kept = starts.clone()
    first: dict[str, Tensor] = {}
    best: dict[str, Tensor] = {}
    at = torch.zeros(len(u), dtype=torch.int64)
    dropped = torch.zeros(len(u), dtype=torch.int64)
    for step in range(settings.steps + 1):
        poll()
        parts, slope = criterion.parts(u)
        now = {name: value.detach().clone() for name, value in parts.items()}
        if not step:
            _check(now["total"])
            first = now
            best = {name: value.clone() for name, value in now.items()}
            better = now["total"].isfinite()
        else:
            # NaN is less than nothing; a start that was NaN takes the first number it finds
            better = (now["total"] < best["total"]) | (
                now["total"].isfinite() & ~best["total"].isfinite()
            )
        for name in best:
            best[name] = torch.where(better, now[name], best[name])
        kept[better] = u.detach()[better]
        at[better.cpu()] = step
        if step == settings.steps:
            break
        finite = now["total"].isfinite()
        adam.zero_grad()
        torch.where(finite, slope, 0.0).sum().backward()
        assert u.grad is not None
        sound = u.grad.flatten(1).isfinite().all(dim=1) & finite
        dropped += (~sound).cpu()
        u.grad[~sound] = 0.0
        before = u.detach().clone()
        for group in adam.param_groups:
            group["lr"] = settings.lr * ramp(step, settings.steps)
        adam.step()
        with torch.no_grad():
            u[~sound] = before[~sound]
    return Optimised(kept, first, best, at.tolist(), dropped.tolist())
