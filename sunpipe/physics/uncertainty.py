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
from sunpipe.physics.flux import graded, inclined
from sunpipe.physics.patch import MU0, Patches

Tensor = torch.Tensor


def _root(p: Patches, variance: Tensor, where: Tensor | None = None) -> Tensor:
    """Square root of the summed variances that are known, (B,)."""
    known = variance.isfinite()
    return p.region.sum(variance, known if where is None else known & where).sqrt()


def _mean(p: Patches, variance: Tensor, where: Tensor | None = None) -> Tensor:
    """Error of a mean of independent pixels, (B,)."""
    known = variance.isfinite() if where is None else variance.isfinite() & where
    return p.region.sum(variance, known).sqrt() / p.region.count(known)


def _spread(p: Patches, sigma: Tensor, component: int) -> Tensor:
    """Variance of Br, Bt or Bp, (P,)."""
    return p.region.gather(sigma[:, component]).square()


def _bh_variance(fields: Tensor, sigma: Tensor) -> Tensor:
    """``(Bx^2 sx^2 + By^2 sy^2) / Bh^2``, (B, H, W)."""
    weighted = (fields[:, 1:].square() * sigma[:, 1:].square()).sum(dim=1)
    return weighted / fields[:, 1:].square().sum(dim=1)


def _strength_variance(fields: Tensor, sigma: Tensor) -> Tensor:
    """``(Bx^2 sx^2 + By^2 sy^2 + Bz^2 sz^2) / B^2``, (B, H, W)."""
    return (fields.square() * sigma.square()).sum(dim=1) / fields.square().sum(dim=1)


def _jz_variance(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of Jz in (gauss/pixel)^2, (P,); 0 on the frame, where jsoc's Jz is 0 as well."""
    east, west, _, _ = p.region.sides(sigma[:, 1].square())
    _, _, south, north = p.region.sides(sigma[:, 2].square())
    inner = 0.25 * (east + west + south + north)
    some = p.region.count(p.region.inner & inner.isfinite()) > 0
    frame = torch.where(some, 0.0, torch.nan).repeat_interleave(p.region.lengths)
    return torch.where(p.region.inner, inner, frame.to(inner))


def errvf(p: Patches, sigma: Tensor) -> Tensor:
    """USFLUX: ``A sqrt(sum sz^2)`` in Mx."""
    return p.area_cm2 * _root(p, _spread(p, sigma, 0))


def errgam(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGAM, in degrees; the angle's variance is ``(Bz^2 sh^2 + Bh^2 sz^2) / B^4``."""
    bz2, bh2 = p.bz.square(), p.bh.square()
    horizontal = p.region.gather(_bh_variance(p.fields, sigma))
    variance = (bz2 * horizontal + bh2 * _spread(p, sigma, 0)) / (bz2 + bh2).square()
    return torch.rad2deg(_mean(p, variance, inclined(p)))


def _gradient(p: Patches, image: Tensor, variance: Tensor) -> Tensor:
    """Of a mean gradient: ``(dx^2 var(dx) + dy^2 var(dy)) / |grad|^2`` per pixel."""
    dx, dy, where = graded(p.region, image, p.jsoc)
    east, west, south, north = p.region.sides(variance)
    spread = dx.square() * (east + west) + dy.square() * (south + north)
    error = _mean(p, 0.25 * spread / (dx.square() + dy.square()), where)
    return error if p.jsoc else error / p.megametres


def errbt(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBT."""
    return _gradient(p, p.strength_image, _strength_variance(p.fields, sigma))


def errbz(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBZ."""
    return _gradient(p, p.fields[:, 0], sigma[:, 0].square())


def errbh(p: Patches, sigma: Tensor) -> Tensor:
    """MEANGBH."""
    return _gradient(p, p.bh_image, _bh_variance(p.fields, sigma))


def errjz(p: Patches, sigma: Tensor) -> Tensor:
    """MEANJZD, in mA/m^2."""
    mean = _mean(p, _jz_variance(p, sigma), p.has_jz)
    return mean * TESLA * 1e3 / (MU0 * p.metres)


def errusi(p: Patches, sigma: Tensor) -> Tensor:
    """TOTUSJZ, in A."""
    return _root(p, _jz_variance(p, sigma), p.has_jz) * p.metres * TESLA / MU0


def errjht(p: Patches, sigma: Tensor) -> Tensor:
    """SAVNCPP, in its unit."""
    length = p.metres_per_arcsec / p.arcsec if p.jsoc else p.metres
    return _root(p, _jz_variance(p, sigma), p.has_jz) * length * TESLA / MU0


def erralp(p: Patches, sigma: Tensor) -> Tensor:
    """MEANALP, in 1/Mm: derivative of ``sum(Jz Bz) / sum(Bz^2)`` by each Jz and Bz."""
    where = twisted(p)
    squares = p.region.sum(p.bz.square(), where)
    alpha = p.region.sum(p.jz * p.bz, where) / squares
    alpha = alpha.repeat_interleave(p.region.lengths)
    variance = p.bz.square() * _jz_variance(p, sigma)
    variance = variance + (p.jz - 2 * alpha * p.bz).square() * _spread(p, sigma, 0)
    return _root(p, variance, where) / squares / p.megametres


def _helicity(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of Jz Bz, (P,)."""
    variance = _jz_variance(p, sigma) * p.bz.square()
    return variance + _spread(p, sigma, 0) * p.jz.square()


def errmih(p: Patches, sigma: Tensor) -> Tensor:
    """MEANJZH, in G^2/m."""
    return _mean(p, _helicity(p, sigma), twisted(p)) / p.metres


def errtui(p: Patches, sigma: Tensor) -> Tensor:
    """TOTUSJH and ABSNJZH, in G^2/m."""
    return _root(p, _helicity(p, sigma), twisted(p)) / p.metres


def _energy(p: Patches, sigma: Tensor) -> Tensor:
    """Variance of ``(B - Bp)^2``, (P,)."""
    bx, by = p.potential
    x, y = (p.bx - bx).square(), (p.by - by).square()
    return 4 * (x * _spread(p, sigma, 2) + y * _spread(p, sigma, 1))


def errmpot(p: Patches, sigma: Tensor) -> Tensor:
    """MEANPOT, in erg/cm^3."""
    return _mean(p, _energy(p, sigma)) / (8 * math.pi)


def errtpot(p: Patches, sigma: Tensor) -> Tensor:
    """TOTPOT, in erg/cm."""
    return _root(p, _energy(p, sigma)) * p.area_cm2 / (8 * math.pi)


def _shear_slopes(p: Patches) -> tuple[Tensor, Tensor, Tensor]:
    """Derivative of the shear angle by Bx, By and Bz in radian per gauss, (P,) each.

    Bz stands in both vectors. With c the cosine of the angle and B, Q their
    lengths, dc/dBx = Bpx / (B Q) - c Bx / B^2; dc/dBz has both lengths' share.
    NaN where the vectors are parallel: the angle has a corner there.
    """
    px, py = p.potential
    own = p.strength.square()
    other = px.square() + py.square() + p.bz.square()
    product = (own * other).sqrt()
    cosine = (p.bx * px + p.by * py + p.bz.square()) / product
    sine = torch.deg2rad(p.shear).sin()
    x = px / product - cosine * p.bx / own
    y = py / product - cosine * p.by / own
    z = 2 * p.bz / product - cosine * p.bz * (1 / own + 1 / other)
    return tuple(-slope / sine for slope in (x, y, z))  # type: ignore[return-value]


def errmsha(p: Patches, sigma: Tensor) -> Tensor:
    """MEANSHR, in degrees.

    jsoc keeps what the published code does: the last pixel of the last column alone,
    by three times its share from Bx, over the number of pixels above 45 degrees.
    That is nearly 0 (0.000 in headers) and says nothing.
    """
    slopes = _shear_slopes(p)
    if not p.jsoc:
        parts = zip(slopes, (2, 1, 0), strict=True)
        variance = sum(slope.square() * _spread(p, sigma, place) for slope, place in parts)
        return torch.rad2deg(_mean(p, variance, p.has_shear))  # type: ignore[arg-type]
    share = 3 * slopes[0].square() * _spread(p, sigma, 2)
    sheared = p.region.count(p.has_shear & (p.shear > 45))
    place = (p.region.column * p.region.height + p.region.row).double()  # it goes by columns
    last = torch.segment_reduce(place, "max", lengths=p.region.lengths)
    share = torch.where(place == last.repeat_interleave(p.region.lengths), share, 0.0)
    error = torch.rad2deg(p.region.sum(share).sqrt()) / sheared
    return torch.where(sheared > 0, error, torch.nan)


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
    "MEANSHR": errmsha,
}
