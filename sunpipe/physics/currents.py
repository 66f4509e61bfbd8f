"""Vertical currents, twist and current helicity; Bobra et al. 2014, table 3."""

from __future__ import annotations

import torch

from sunpipe.physics.patch import MU0, ZERO, Patches

Tensor = torch.Tensor
TESLA = 1e-4  # per gauss


def meanjzd(p: Patches) -> Tensor:
    """Mean vertical current density ``mean(Jz) / (mu0 L)`` in mA/m^2."""
    return p.region.mean(p.jz, p.has_jz) * TESLA * 1e3 / (MU0 * p.metres)


def totusjz(p: Patches) -> Tensor:
    """Total unsigned vertical current ``sum |Jz| L / mu0`` in A."""
    return p.region.sum(p.jz.abs(), p.has_jz) * p.metres * TESLA / MU0


def twisted(p: Patches) -> Tensor:
    """Pixels that count for twist and helicity: JSOC leaves out those where Jz or Bz is 0."""
    if not p.jsoc:
        return p.has_jz
    return p.region.inner & (p.jz.abs() > ZERO) & (p.bz.abs() > ZERO)


def meanalp(p: Patches) -> Tensor:
    """Twist weighted by Bz^2, ``sum(Jz Bz) / sum(Bz^2) / L`` in 1/Mm.

    Hagino and Sakurai 2004, PASJ 56, 831.
    """
    where = twisted(p)
    twist = p.region.sum(p.jz * p.bz, where) / p.region.sum(p.bz.square(), where)
    return twist / p.megametres


def meanjzh(p: Patches) -> Tensor:
    """Mean current helicity ``mean(Jz Bz) / L`` in G^2/m."""
    return p.region.mean(p.jz * p.bz, twisted(p)) / p.metres


def totusjh(p: Patches) -> Tensor:
    """Total unsigned current helicity ``sum |Jz Bz| / L`` in G^2/m."""
    return p.region.sum((p.jz * p.bz).abs(), twisted(p)) / p.metres


def absnjzh(p: Patches) -> Tensor:
    """Absolute net current helicity ``|sum Jz Bz| / L`` in G^2/m."""
    return p.region.sum(p.jz * p.bz, twisted(p)).abs() / p.metres


def savncpp(p: Patches) -> Tensor:
    """Net currents of the two polarities, unsigned and added, in A.

    ``(|sum Jz over Bz > 0| + |sum Jz over Bz <= 0|) L / mu0``; JSOC divides by
    the pixel's arcsec where L asks for the product, so its "A" is larger by
    1/s^2 (3.86 for the 0.5088 arcsec of HARP 377).
    """
    up = p.bz > 0
    positive = p.region.sum(torch.where(up, p.jz, 0.0), p.has_jz)
    negative = p.region.sum(torch.where(up, 0.0, p.jz), p.has_jz)
    length = p.metres_per_arcsec / p.arcsec if p.jsoc else p.metres
    return (positive.abs() + negative.abs()) * TESLA * length / MU0
