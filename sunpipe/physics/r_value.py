"""Flux near strong polarity inversion lines (Schrijver 2007, ApJ 655, L117)."""

from __future__ import annotations

import torch

from sunpipe.physics.patch import Patches

Tensor = torch.Tensor
STRONG = 150.0  # gauss
BIN_ARCSEC = 2.0  # the pixel of MDI, for which R was defined
FWHM_BINS = 10.0
SIGMA_BINS = FWHM_BINS / 2.3548


def _bin(image: Tensor, factor: int) -> Tensor:
    """Mean over whole `factor` x `factor` cells; what is left at the far edges is dropped."""
    return torch.nn.functional.avg_pool2d(image[:, None], factor)[:, 0]


def _dilate(where: Tensor, offset: int) -> Tensor:
    """3 x 3 box dilation with the box centred, or its centre at (`offset`, `offset`)."""
    padded = torch.nn.functional.pad(where.double(), (1 - offset, 1 + offset) * 2)
    return torch.nn.functional.max_pool2d(padded[:, None], 3, stride=1)[:, 0] > 0


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian of unit sum, zeros outside."""
    radius = int(4 * sigma + 0.5)
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    wide = torch.nn.functional.conv2d(image[:, None], kernel, padding=(0, radius))
    tall = torch.nn.functional.conv2d(wide, kernel.transpose(2, 3), padding=(radius, 0))
    return tall[:, 0]


def _weighted_sum(field: Tensor, factor: int, offset: int) -> Tensor:
    """Sum of |B| weighted by the nearness of a strong polarity inversion line, in G bins."""
    binned = _bin(field, factor)
    line = _dilate(binned > STRONG, offset) & _dilate(binned < -STRONG, offset)
    return (_blur(line.double(), SIGMA_BINS) * binned.abs()).sum(dim=(1, 2))


def r_value(p: Patches) -> Tensor:
    """Schrijver's R.

    jsoc: from the line-of-sight field, log10 of a sum of gauss (no pixel area),
    0 where the sum is below 1, with the published code's off-centre box; NaN
    without a line-of-sight field. physical: from Br, log10 of maxwell, box
    centred; NaN where no strong inversion line stands.
    """
    field = p.los if p.jsoc else p.bz
    if field is None:
        return torch.full_like(p.pixel_cm, torch.nan)
    factors = (BIN_ARCSEC / p.arcsec).round().clamp(min=1).long()
    sums = torch.empty_like(p.pixel_cm)
    for factor in factors.unique().tolist():  # one pass per binning, not per image
        rows = factors == factor
        if factor > min(field.shape[1:]):
            raise ValueError(f"patch {tuple(field.shape[1:])} is smaller than one 2 arcsec bin")
        sums[rows] = _weighted_sum(field[rows].nan_to_num(0.0), factor, int(p.jsoc))
    if p.jsoc:
        return torch.where(sums < 1, 0.0, sums.log10())
    return torch.where(sums > 0, (sums * (factors * p.pixel_cm) ** 2).log10(), torch.nan)
