"""Flux, inclination and gradients; formulas of Bobra et al. 2014, table 3."""

from __future__ import annotations

import torch

from sunpipe.physics.derivatives import central, masked_mean, masked_sum
from sunpipe.physics.patch import ZERO, Patches

Tensor = torch.Tensor
MIN_BH = 100.0  # gauss; below it the horizontal field is noise


def usflux(p: Patches) -> Tensor:
    """``A sum |Bz|`` in Mx."""
    return p.area_cm2 * masked_sum(p.bz.abs(), p.mask)


def netflux(p: Patches) -> Tensor:
    """``A sum Bz`` in Mx."""
    return p.area_cm2 * masked_sum(p.bz, p.mask)


def fluximb(p: Patches) -> Tensor:
    """``sum Bz / sum |Bz|``."""
    return masked_sum(p.bz, p.mask) / masked_sum(p.bz.abs(), p.mask)


def area(p: Patches) -> Tensor:
    """Mask area in Mm^2."""
    return p.mask.sum(dim=(1, 2)) * p.megametres**2


def meangam(p: Patches) -> Tensor:
    """Mean of ``atan(Bh / |Bz|)`` in degrees where Bh >= 100 G and Bz is not 0."""
    angle = torch.rad2deg(torch.atan2(p.bh, p.bz.abs()))
    return masked_mean(angle, p.mask & (p.bh >= MIN_BH) & (p.bz != 0))


def gradient_mask(p: Patches, image: Tensor) -> Tensor:
    """Pixels whose gradient counts: JSOC leaves out those whose derivatives add up to 0."""
    if not p.jsoc:
        return p.mask
    dx, dy = central(image)
    return p.mask & ((dx + dy).abs() > ZERO)


def _mean_gradient(p: Patches, image: Tensor, mask: Tensor) -> Tensor:
    dx, dy = central(image)
    gradient = masked_mean(torch.hypot(dx, dy), mask)
    return gradient if p.jsoc else gradient / p.megametres


def meangbt(p: Patches) -> Tensor:
    """Mean ``|grad |B||``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.strength, gradient_mask(p, p.strength))


def meangbz(p: Patches) -> Tensor:
    """Mean ``|grad Bz|``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.bz, gradient_mask(p, p.bz))


def meangbh(p: Patches) -> Tensor:
    """Mean ``|grad Bh|``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.bh, gradient_mask(p, p.bh))


def usfluxl(p: Patches) -> Tensor:
    """``A sum |Blos|`` in Mx; NaN without a line-of-sight field."""
    if p.los is None or p.los_mask is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return p.area_cm2 * masked_sum(p.los.abs(), p.los_mask)


def meangbl(p: Patches) -> Tensor:
    """Mean ``|grad Blos|``; NaN without a line-of-sight field."""
    if p.los is None or p.los_mask is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return _mean_gradient(p, p.los, p.los_mask)
