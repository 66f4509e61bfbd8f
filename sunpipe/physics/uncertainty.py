"""Formal errors of the keywords: the pixels' errors carried through each formula.

First-order propagation with independent pixels and components, as in the
published headers (ERRVF, ERRGAM, ...). Means are divided by the number of
pixels that enter the error. The potential field counts as free of error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from sunpipe.physics.currents import TESLA, twisted
from sunpipe.physics.derivatives import central, masked_sum
from sunpipe.physics.flux import MIN_BH, gradient_mask
from sunpipe.physics.patch import MU0, Patches

Tensor = torch.Tensor


def _count(values: Tensor, where: Tensor) -> Tensor:
    return (where & values.isfinite()).sum(dim=(1, 2))


def _root(variance: Tensor, where: Tensor) -> Tensor:
    """Square root of the summed variances, (B,)."""
    return masked_sum(variance, where).sqrt()


def _side_sums(variance: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the two neighbours' variances along x and along y; NaN on the frame."""
    along_x = torch.full_like(variance, torch.nan)
    along_y = torch.full_like(variance, torch.nan)
    along_x[:, 1:-1, 1:-1] = variance[:, 1:-1, 2:] + variance[:, 1:-1, :-2]
    along_y[:, 1:-1, 1:-1] = variance[:, 2:, 1:-1] + variance[:, :-2, 1:-1]
    return along_x, along_y


def _bh_variance(p: Patches, sigma: Tensor) -> Tensor:
    """``(Bx^2 sx^2 + By^2 sy^2) / Bh^2``."""
    spread = p.bx.square() * sigma[:, 2].square() + p.by.square() * sigma[:, 1].square()
    return spread / p.bh.square()


def _strength_variance(p: Patches, sigma: Tensor) -> Tensor:
    """``(Bx^2 sx^2 + By^2 sy^2 + Bz^2 sz^2) / B^2``."""
    weighted = p.fields.square() * sigma.square()
    return weighted.sum(dim=1) / p.strength.square()


def _jz_variance(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of Jz in (gauss/pixel)^2; 0 on the frame, where jsoc's Jz is 0 as well."""
    along_x = _side_sums(sigma[:, 1].square())[0]
    along_y = _side_sums(sigma[:, 2].square())[1]
    variance = 0.25 * (along_x + along_y)
    if p.jsoc:
        frame = torch.ones_like(p.mask[0])
        frame[1:-1, 1:-1] = False
        variance = torch.where(frame, 0.0, variance)
    return variance


def errvf(p: Patches, sigma: Tensor) -> Tensor:
    """USFLUX: ``A sqrt(sum sz^2)`` in Mx."""
    return p.area_cm2 * _root(sigma[:, 0].square(), p.mask)


def errgam(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGAM, in degrees; the angle's variance is ``(Bz^2 sh^2 + Bh^2 sz^2) / B^4``."""
    bz2, bh2 = p.bz.square(), p.bh.square()
    variance = (bz2 * _bh_variance(p, sigma) + bh2 * sigma[:, 0].square()) / (bz2 + bh2).square()
    where = p.mask & (p.bh >= MIN_BH) & (p.bz != 0)
    return torch.rad2deg(_root(variance, where) / _count(variance, where))


def _gradient(p: Patches, image: Tensor, variance: Tensor) -> Tensor:
    """Of a mean gradient: ``(dx^2 var(dx) + dy^2 var(dy)) / |grad|^2`` per pixel."""
    dx, dy = central(image)
    along_x, along_y = _side_sums(variance)
    spread = 0.25 * (dx.square() * along_x + dy.square() * along_y) / (dx.square() + dy.square())
    where = gradient_mask(p, image)
    error = _root(spread, where) / _count(spread, where)
    return error if p.jsoc else error / p.megametres


def errbt(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBT."""
    return _gradient(p, p.strength, _strength_variance(p, sigma))


def errbz(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBZ."""
    return _gradient(p, p.bz, sigma[:, 0].square())


def errbh(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBH."""
    return _gradient(p, p.bh, _bh_variance(p, sigma))


def errjz(p: Patches, sigma: Tensor) -> Tensor:
    """MEANJZD, in mA/m^2."""
    variance = _jz_variance(p, sigma)
    mean = _root(variance, p.mask) / _count(variance, p.mask)
    return mean * TESLA * 1e3 / (MU0 * p.metres)


def errusi(p: Patches, sigma: Tensor) -> Tensor:
    """TOTUSJZ, in A."""
    return _root(_jz_variance(p, sigma), p.mask) * p.metres * TESLA / MU0


def errjht(p: Patches, sigma: Tensor) -> Tensor:
    """SAVNCPP, in its unit."""
    length = p.metres_per_arcsec / p.arcsec if p.jsoc else p.metres
    return _root(_jz_variance(p, sigma), p.mask) * length * TESLA / MU0


def erralp(p: Patches, sigma: Tensor) -> Tensor:
    """MEANALP, in 1/Mm: derivative of ``sum(Jz Bz) / sum(Bz^2)`` by each Jz and Bz."""
    where = twisted(p)
    squares = masked_sum(p.bz.square(), where)
    alpha = (masked_sum(p.jz * p.bz, where) / squares).view(-1, 1, 1)
    variance = p.bz.square() * _jz_variance(p, sigma)
    variance = variance + (p.jz - 2 * alpha * p.bz).square() * sigma[:, 0].square()
    return _root(variance, where) / squares / p.megametres


def _helicity(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of Jz Bz."""
    variance = _jz_variance(p, sigma) * p.bz.square()
    return variance + sigma[:, 0].square() * p.jz.square()


def errmih(p: Patches, sigma: Tensor) -> Tensor:
    """MEANJZH, in G^2/m."""
    variance = _helicity(p, sigma)
    return _root(variance, twisted(p)) / _count(variance, twisted(p)) / p.metres


def errtui(p: Patches, sigma: Tensor) -> Tensor:
    """TOTUSJH and ABSNJZH, in G^2/m."""
    return _root(_helicity(p, sigma), twisted(p)) / p.metres


def _energy(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of ``(B - Bp)^2``."""
    bx, by = p.potential
    x, y = (p.bx - bx).square(), (p.by - by).square()
    return 4 * (x * sigma[:, 2].square() + y * sigma[:, 1].square())


def errmpot(p: Patches, sigma: Tensor) -> Tensor:
    """MEANPOT, in erg/cm^3."""
    variance = _energy(p, sigma)
    return _root(variance, p.mask) / _count(variance, p.mask) / (8 * math.pi)


def errtpot(p: Patches, sigma: Tensor) -> Tensor:
    """TOTPOT, in erg/cm."""
    return _root(_energy(p, sigma), p.mask) * p.area_cm2 / (8 * math.pi)


# keyword: its error; the table in quantities.py has the errors' own names.
ERRORS: Mapping[str, Callable[[Patches, Tensor], Tensor]] = {
    "USFLUX": errvf,
    "MEANGAM": errgam,
    "MEANGBT": errbt,
    "MEANGBZ": errbz,
    "MEANGBH": errbh,
    "MEANJZD": errjz,
    "TOTUSJZ": errusi,
    "MEANALP": erralp,
    "MEANJZH": errmih,
    "TOTUSJH": errtui,
    "ABSNJZH": errtui,
    "SAVNCPP": errjht,
    "MEANPOT": errmpot,
    "TOTPOT": errtpot,
}
