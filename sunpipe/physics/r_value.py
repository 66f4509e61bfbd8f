"""Flux near strong polarity inversion lines (Schrijver 2007, ApJ 655, L117)."""

from __future__ import annotations

import math

import torch

from sunpipe.physics.patch import Patches

Tensor = torch.Tensor
STRONG = 150.0  # gauss
BIN_ARCSEC = 2.0  # the pixel of MDI, for which R was defined
SIGMA_BINS = 10.0 / 2.3548  # a Gaussian of 10 bins full width at half maximum, about 15 Mm


def _extend(image: Tensor, by: int, mirror: bool) -> Tensor:
    """Add a frame `by` pixels wide: the mirror image of the inside, or zeros."""
    if not mirror:
        return torch.nn.functional.pad(image, (by, by, by, by))
    for axis in (1, 2):
        size = image.shape[axis]
        place = torch.arange(-by, size + by, device=image.device) % (2 * size)
        image = image.index_select(axis, torch.minimum(place, 2 * size - 1 - place))
    return image


def _bin(field: Tensor, factor: int, keep_partial: bool) -> Tensor:
    """Mean over `factor` x `factor` cells; partial ones are dropped or filled up with zeros."""
    if keep_partial:
        height, width = field.shape[1:]
        field = torch.nn.functional.pad(field, (0, -width % factor, 0, -height % factor))
    return torch.nn.functional.avg_pool2d(field[:, None], factor)[:, 0]


def reference_shift(size: int) -> int:
    """How far the published script's 3 x 3 box lies from the centre, along an axis of `size`.

    It writes the box from pixel ``round(size / 2)`` of a kernel as large as the
    image on, so the place depends on the size: 1 pixel off, or 2.
    """
    return 2 if size % 4 == 3 else 1


def _dilate(where: Tensor, shifts: tuple[int, int], mirror: bool) -> Tensor:
    """3 x 3 box dilation whose box lies `shifts` (rows, columns) off centre."""
    reach = 1 + max(shifts)
    wide = _extend(where.float(), reach, mirror)
    spread = torch.nn.functional.max_pool2d(wide[:, None], 3, stride=1)[:, 0] > 0
    rows, columns = (reach - 1 - shift for shift in shifts)
    height, width = where.shape[1:]
    return spread[:, rows : rows + height, columns : columns + width]


def _blur(image: Tensor, mirror: bool) -> Tensor:
    """Convolve with the Gaussian, of unit sum and cut at 4 sigma.

    Shifted copies are added along one axis, then the other: a library convolution
    in float64 is four times slower.
    """
    radius = int(4 * SIGMA_BINS + 0.5)
    weights = [math.exp(-0.5 * (step / SIGMA_BINS) ** 2) for step in range(-radius, radius + 1)]
    wide = _extend(image, radius, mirror)
    for axis in (1, 2):
        size = image.shape[axis]
        blurred = torch.zeros_like(wide.narrow(axis, 0, size))
        for step, weight in enumerate(weights):
            blurred.add_(wide.narrow(axis, step, size), alpha=weight / sum(weights))
        wide = blurred
    return wide


def _weighted_sum(field: Tensor, factor: int, jsoc: bool) -> Tensor:
    """Sum over bins of |B| weighted by the nearness of a strong inversion line, in G."""
    binned = _bin(field, factor, keep_partial=jsoc)
    height, width = binned.shape[1:]
    shifts = (reference_shift(height), reference_shift(width)) if jsoc else (0, 0)
    positive, negative = (_dilate(side > STRONG, shifts, jsoc) for side in (binned, -binned))
    weight = _blur((positive & negative).to(field.dtype), jsoc)
    return (weight * binned.abs()).double().sum(dim=(1, 2))


def r_value(p: Patches) -> Tensor:
    """Schrijver's R, over the whole patch (no mask).

    jsoc: the published script to the letter, from the line-of-sight field; log10
    of a sum of gauss (no pixel area), 0 where the sum is below 1, NaN without a
    line-of-sight field. physical: from Br (from the line-of-sight field where
    there is no vector), log10 of maxwell, boxes centred, nothing beyond the edges;
    NaN where there is no strong inversion line.
    """
    field = p.los if p.jsoc or not p.vector else p.fields[:, 0]
    if field is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    factors = (BIN_ARCSEC / p.arcsec).round().clamp(1, min(field.shape[1:])).long()
    sums = torch.zeros_like(p.pixel_cm, dtype=torch.float64)
    for factor in factors.unique().tolist():  # one pass per binning, not per image
        rows = (factors == factor).nonzero()[:, 0]
        sums = sums.index_put((rows,), _weighted_sum(field[rows], factor, p.jsoc))
    found = sums >= 1 if p.jsoc else sums > 0
    logarithm = torch.where(found, sums, 1.0).log10()
    if p.jsoc:
        return torch.where(found, logarithm, 0.0)
    return torch.where(found, logarithm + 2 * (factors * p.pixel_cm).log10(), torch.nan)
