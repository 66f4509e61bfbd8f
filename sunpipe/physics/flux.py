"""Flux, inclination, gradients and areas; formulas of Bobra et al. 2014, table 3."""

from __future__ import annotations

import math

import torch

from sunpipe.physics.derivatives import root
from sunpipe.physics.patch import ZERO, Patches
from sunpipe.physics.region import Region

Tensor = torch.Tensor
MIN_BH = 100.0  # gauss; below it the horizontal field is noise
RSUN_CM = 6.96e10  # RSUN_REF of HMI
HEMISPHERE_CM2 = 2 * math.pi * RSUN_CM**2


def usflux(p: Patches) -> Tensor:
    """``A sum |Bz|`` in Mx."""
    return p.area_cm2 * p.region.sum(p.bz.abs())


def netflux(p: Patches) -> Tensor:
    """``A sum Bz`` in Mx."""
    return p.area_cm2 * p.region.sum(p.bz)


def fluximb(p: Patches) -> Tensor:
    """``sum Bz / sum |Bz|``."""
    return p.region.sum(p.bz) / p.region.sum(p.bz.abs())


def area(p: Patches) -> Tensor:
    """Mask area in Mm^2; NaN where the field has no valid pixel, which is not an area of 0."""
    measured = p.valid.any(dim=2).any(dim=1)
    return torch.where(measured, p.region.count() * p.megametres**2, torch.nan)


def area_acr(p: Patches) -> Tensor:
    """Area of the active pixels in millionths of the hemisphere; NaN without a bitmap.

    jsoc counts each by the weight of `sunpipe.physics.place.deprojection`.
    """
    if p.active is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return 1e6 * p.active.double().sum(dim=(1, 2)) * p.area_cm2 / HEMISPHERE_CM2


def inclined(p: Patches) -> Tensor:
    """Pixels that count for MEANGAM: Bh >= 100 G and Bz not 0."""
    return (p.bh >= MIN_BH) & (p.bz != 0)


def meangam(p: Patches) -> Tensor:
    """Mean of ``atan(Bh / |Bz|)`` in degrees where Bh >= 100 G and Bz is not 0."""
    where = inclined(p)
    angle = torch.atan2(torch.where(where, p.bh, 1.0), torch.where(where, p.bz.abs(), 1.0))
    return p.region.mean(torch.rad2deg(angle), where)


def graded(region: Region, image: Tensor, skip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Differences along x and y, and the pixels whose gradient counts, (P,) each.

    `skip` leaves out those whose two derivatives add up to 0, as JSOC does.
    """
    dx, dy = region.differences(image)
    return dx, dy, region.inner & ((dx + dy).abs() > ZERO) if skip else region.inner


def _mean_gradient(p: Patches, region: Region, image: Tensor, skip: bool) -> Tensor:
    dx, dy, where = graded(region, image, skip)
    gradient = region.mean(root(dx.square() + dy.square()), where)
    return gradient if p.jsoc else gradient / p.megametres


def meangbt(p: Patches) -> Tensor:
    """Mean ``|grad |B||``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.region, p.strength_image, p.jsoc)


def meangbz(p: Patches) -> Tensor:
    """Mean ``|grad Bz|``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.region, p.fields[:, 0], p.jsoc)


def meangbh(p: Patches) -> Tensor:
    """Mean ``|grad Bh|``; G/pixel as published by JSOC, or G/Mm."""
    return _mean_gradient(p, p.region, p.bh_image, p.jsoc)


def usfluxl(p: Patches) -> Tensor:
    """``A sum |Blos|`` in Mx; NaN without a line-of-sight field."""
    if p.los is None or p.los_region is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return p.area_cm2 * p.los_region.sum(p.los_region.gather(p.los).abs())


def meangbl(p: Patches) -> Tensor:
    """Mean ``|grad Blos|``; NaN without a line-of-sight field. No pixel is skipped."""
    if p.los is None or p.los_region is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return _mean_gradient(p, p.los_region, p.los, skip=False)


def cmaskl(p: Patches) -> Tensor:
    """Number of pixels that count in the line-of-sight field; NaN without one."""
    if p.los_region is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    return p.los_region.count().double()
