"""Distance of generated fields from an observed patch: in noise, at all scales, in keywords.

Residuals of each component are divided by its quiet noise and pass Charbonnier's
``rho(r) = sqrt(1 + r^2) - 1`` (Charbonnier et al. 1994; the case alpha = 1 of Barron 2019,
arXiv:1701.03077, eq. 1): square below the noise, linear above it, so that a sunspot a
hundred times above the noise does not rule as it would in a sum of squares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.nn import functional

from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS
from sunpipe.physics import measure
from sunpipe.shards.normalize import decode

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise

Tensor = torch.Tensor
Value = TypeVar("Value", float, torch.Tensor)
# Standard deviation of quiet pixels, gauss. Br, Bt, Bp: HARP 377 (docs/simulate.md).
QUIET_G = {"Br": 27.0, "Bt": 55.0, "Bp": 52.0}
COARSEST = 4  # pixels a side where pooling ends
# Quantities that come round after so much. TILT is of a line without a sense, in [-90, 90].
PERIODS = {"TILT": 180.0}
UNDEFINED = 3.0  # natural standard deviations that an undefined quantity counts


def quiet_noise(channels: list[str]) -> Tensor:
    """Noise of each channel in gauss, shape (C, 1, 1).

    Raises
    ------
    DataError
        The channels are not Br, Bt and Bp in some order.
    """
    if sorted(channels) != sorted(COMPONENTS):
        raise DataError(
            f"the generator makes {', '.join(channels)}; inversion weighs {', '.join(COMPONENTS)}"
            " by their noise and needs these three"
        )
    return torch.tensor([QUIET_G[name] for name in channels])[:, None, None]


def charbonnier(residual: Tensor) -> Tensor:
    """``sqrt(1 + r^2) - 1``, without loss of digits at small r."""
    square = residual.square()
    return square / (1 + (1 + square).sqrt())


def nearest_turn(change: Value, name: str) -> Value:
    """The difference of two values of a quantity, the short way round where it is an angle."""
    if name not in PERIODS:
        return change
    period = PERIODS[name]
    return (change + period / 2) % period - period / 2


def show(generator: Generator, w: Tensor, noise: Noise) -> Tensor:
    """Fields (B, C, H, H) in gauss with the gradient by w, (B, w_dim) or (B, num_ws, w_dim)."""
    w_plus = generator.network.broadcast(w) if w.ndim == 2 else w
    return decode(generator.network.synthesis(w_plus, noise), generator.normalize)


@dataclass(frozen=True)
class FieldMisfit:
    """Misfit of fields to one observed patch, or to a batch of them.

    Attributes
    ----------
    fields : Tensor, shape (B or 1, C, H, H)
        Observed, gauss.
    mask : Tensor, shape (B or 1, 1, H, H)
        1 where valid, 0 elsewhere.
    sigma : Tensor, shape (C, 1, 1)
        See `quiet_noise`.
    """

    fields: Tensor
    mask: Tensor
    sigma: Tensor

    def __call__(self, shown: Tensor) -> Tensor:
        """Mean over scales of the mean over valid pixels, (B,).

        At scale s the residual is averaged over the valid ones of s x s pixels. The noise of
        an average falls as 1/s, so large structure is held to be known better; pixels count
        by their valid share.
        """
        residual = (shown - self.fields) / self.sigma * self.mask
        share = self.mask
        total = torch.zeros(len(shown), device=shown.device)
        scale, count = 1, 0
        while True:
            mean = residual / share.clamp(min=1e-6)
            cost = charbonnier(scale * mean) * share
            weight = share.sum(dim=(1, 2, 3)) * residual.shape[1]
            # one more factor 1/s makes a residual of large structure count alike at all scales
            total = total + cost.sum(dim=(1, 2, 3)) / weight / scale
            count += 1
            if residual.shape[-1] <= COARSEST:
                return total / count
            residual = functional.avg_pool2d(residual, 2)
            share = functional.avg_pool2d(share, 2)
            scale *= 2


def measured(
    fields: Tensor, mask: Tensor, channels: list[str], pixel_cm: float, names: list[str]
) -> Tensor:
    """Quantities (B, Q) in physical units of fields (B, C, H, H) inside `mask` (B or 1, 1, H, H).

    Invalid pixels count in neither the observed nor the generated patch.
    """
    order = [channels.index(name) for name in COMPONENTS]
    inside = torch.where(mask > 0, fields, torch.nan)[:, order]
    found = measure(inside, pixel_cm, names=tuple(names), convention="physical")
    if not names:
        return torch.zeros((len(fields), 0), dtype=torch.float64)
    return torch.stack([found[name] for name in names], dim=1)


@dataclass(frozen=True)
class KeywordMisfit:
    """Misfit of measured quantities in natural standard deviations.

    Attributes
    ----------
    wanted : Tensor, shape (1, Q)
        Measured on the observed patch; all defined.
    spread : Tensor, shape (Q,)
    names, channels : list of str
    mask : Tensor, shape (1, 1, H, H)
    pixel_cm : float
    """

    wanted: Tensor
    spread: Tensor
    names: list[str]
    channels: list[str]
    mask: Tensor
    pixel_cm: float

    def differences(self, shown: Tensor) -> Tensor:
        """Generated minus observed over the spread, (B, Q); NaN where undefined."""
        change = measured(shown, self.mask, self.channels, self.pixel_cm, self.names) - self.wanted
        for place, name in enumerate(self.names):
            change[:, place] = nearest_turn(change[:, place], name)
        return change / self.spread

    def costs(self, shown: Tensor) -> Tensor:
        """`charbonnier` of each quantity over their number, (B, Q).

        What the observed patch has and a generated one leaves undefined is `UNDEFINED` off,
        so that nothing is won by having no spot at all.
        """
        apart = self.differences(shown)
        known = torch.where(apart.isfinite(), apart, UNDEFINED)
        return charbonnier(known) / max(len(self.names), 1)

    def pull(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Misfit (B,), and its gradient by the fields, (B, C, H, H).

        Some quantities have no gradient at some fields (the separation of the polarities
        where there is only one): one that is not finite is left out, for that patch alone.
        """
        if not self.names:
            return torch.zeros(len(shown), device=shown.device), torch.zeros_like(shown)
        leaf = shown.detach().requires_grad_(True)
        costs = self.costs(leaf)
        (slope,) = torch.autograd.grad(costs.sum(), leaf)
        sound = _sound(slope)
        if not bool(sound.all()):
            slope = torch.where(sound, slope, 0.0)
            for place in range(len(self.names)):
                alone = self._alone(place, shown.detach().clone()) / len(self.names)
                slope += torch.where(sound, 0.0, alone)
        return costs.detach().sum(dim=1).to(shown.dtype), slope

    def _alone(self, place: int, shown: Tensor) -> Tensor:
        """Gradient of one quantity's cost by itself, 0 where it is not finite.

        It is measured by itself, since 0 times the infinite slope of another is no number.
        """
        one = slice(place, place + 1)
        alone = replace(
            self, names=self.names[one], wanted=self.wanted[:, one], spread=self.spread[one]
        )
        leaf = shown.requires_grad_(True)
        (slope,) = torch.autograd.grad(alone.costs(leaf).sum(), leaf)
        return torch.where(_sound(slope), slope, 0.0)


def _sound(slope: Tensor) -> Tensor:
    """Rows that are finite, (B, 1, 1, 1)."""
    return slope.flatten(1).isfinite().all(dim=1)[:, None, None, None]
