"""Flux near strong polarity inversion lines (Schrijver 2007, ApJ 655, L117)."""

from __future__ import annotations

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
    wide = _extend(where.double(), reach, mirror)
    spread = torch.nn.functional.max_pool2d(wide[:, None], 3, stride=1)[:, 0] > 0
    rows, columns = (reach - 1 - shift for shift in shifts)
    height, width = where.shape[1:]
    return spread[:, rows : rows + height, columns : columns + width]


def _blur(image: Tensor, mirror: bool) -> Tensor:
    """Convolve with the Gaussian, of unit sum and cut at 4 sigma."""
    radius = int(4 * SIGMA_BINS + 0.5)
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / SIGMA_BINS).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    wide = _extend(image, radius, mirror)[:, None]
    wide = torch.nn.functional.conv2d(wide, kernel)
    return torch.nn.functional.conv2d(wide, kernel.transpose(2, 3))[:, 0]


def _weighted_sum(field: Tensor, factor: int, jsoc: bool) -> Tensor:
    """Sum over bins of |B| weighted by the nearness of a strong inversion line, in G."""
    binned = _bin(field, factor, keep_partial=jsoc)
    height, width = binned.shape[1:]
    shifts = (reference_shift(height), reference_shift(width)) if jsoc else (0, 0)
    positive, negative = (_dilate(side > STRONG, shifts, jsoc) for side in (binned, -binned))
    weight = _blur((positive & negative).double(), jsoc)
    return (weight * binned.abs()).sum(dim=(1, 2))


def r_value(p: Patches) -> Tensor:
    """Schrijver's R, over the whole patch (no mask).

    jsoc: the published script to the letter, from the line-of-sight field; log10
    of a sum of gauss (no pixel area), 0 where the sum is below 1, NaN without a
    line-of-sight field. physical: from Br, log10 of maxwell, boxes centred,
    nothing beyond the edges; NaN where there is no strong inversion line.
    """
    field = p.los if p.jsoc else p.bz
    if field is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    factors = (BIN_ARCSEC / p.arcsec).round().clamp(1, min(field.shape[1:])).long()
    sums = torch.zeros_like(p.pixel_cm)
    for factor in factors.unique().tolist():  # one pass per binning, not per image
        rows = factors == factor
        sums[rows] = _weighted_sum(field[rows].nan_to_num(0.0), factor, p.jsoc)
    if p.jsoc:
        return torch.where(sums < 1, 0.0, sums.log10())
    return torch.where(sums > 0, (sums * (factors * p.pixel_cm) ** 2).log10(), torch.nan)
