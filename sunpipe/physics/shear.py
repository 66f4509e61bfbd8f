"""Free energy and shear: the observed field against the potential field of its Br."""

from __future__ import annotations

import math

import torch

from sunpipe.physics.patch import Patches

Tensor = torch.Tensor


def _difference(p: Patches) -> Tensor:
    """``(Bx - Bpx)^2 + (By - Bpy)^2`` in G^2."""
    bx, by = p.potential
    return (p.bx - bx).square() + (p.by - by).square()


def meanpot(p: Patches) -> Tensor:
    """Mean free magnetic energy density ``mean((B - Bp)^2) / 8 pi`` in erg/cm^3."""
    return p.region.mean(_difference(p)) / (8 * math.pi)


def totpot(p: Patches) -> Tensor:
    """Total free magnetic energy density ``A sum((B - Bp)^2) / 8 pi`` in erg/cm."""
    return p.region.sum(_difference(p)) * p.area_cm2 / (8 * math.pi)


def meanshr(p: Patches) -> Tensor:
    """Mean shear angle in degrees."""
    return p.region.mean(p.shear, p.has_shear)


def shrgt45(p: Patches) -> Tensor:
    """Share of pixels with a shear angle above 45 degrees, in %."""
    above = torch.where(p.shear.isnan(), torch.nan, (p.shear > 45).double())
    return 100.0 * p.region.mean(above, p.has_shear)
