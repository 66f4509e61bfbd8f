"""One-dimensional distributions: pixel values, flux, intensity, and how far two are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.measurement import measure
from sunpipe.shards.normalize import decode

Tensor = torch.Tensor
Floats = NDArray[np.float64]
BINS = 512
REACH = 1.5  # in the range of the common view; what lies beyond counts in the last bin


def wasserstein(one: NDArray[Any], two: NDArray[Any]) -> float:
    """First Wasserstein distance of two samples (N,) and (M,), in their unit."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(np.asarray(one, float), np.asarray(two, float)))


@torch.no_grad()
def histograms(image: Tensor) -> Tensor:
    """Share of the pixels of each image in equal bins of network range.

    Parameters
    ----------
    image : Tensor, (B, C, H, W)
        In network range.

    Returns
    -------
    Tensor of float32, (B, C, BINS)
        Sums to 1 over the bins.
    """
    count, channels = image.shape[:2]
    place = ((image + REACH) * (BINS / (2 * REACH))).floor().clamp(0, BINS - 1).long()
    first = torch.arange(count * channels, device=image.device).mul_(BINS)
    flat = place.flatten(2).reshape(count * channels, -1) + first[:, None]
    found = torch.bincount(flat.flatten(), minlength=count * channels * BINS)
    return (found.double() / flat.shape[1]).float().reshape(count, channels, BINS)


def edges(view: NormalizeSettings, channels: int) -> Floats:
    """Physical values at the edges of the bins, (C, BINS + 1)."""
    line = torch.linspace(-REACH, REACH, BINS + 1, dtype=torch.float64)
    image = line.expand(channels, 1, -1)
    return decode(image, view).reshape(channels, -1).numpy()


def histogram_distance(one: Floats, two: Floats, edge: Floats) -> float:
    """First Wasserstein distance of two histograms (BINS,) with common edges.

    The integral of the difference of the distribution functions, which are
    exact at the edges and straight in between.
    """
    step = np.diff(edge)
    gap = np.concatenate([[0.0], np.cumsum(one - two)])
    a, b = gap[:-1], gap[1:]
    crossing = a * b < 0
    size = np.where(crossing, np.abs(a) + np.abs(b), 1.0)
    area = np.where(crossing, (a**2 + b**2) / size / 2, np.abs(a + b) / 2)
    return float((area * step).sum())


def quantiles(shares: NDArray[Any], edge: Floats, level: float) -> Floats:
    """The `level` quantile of each image from its histogram (N, BINS), straight within a bin."""
    total = np.cumsum(shares, axis=1, dtype=np.float64)
    place = np.minimum((total < level).sum(axis=1), BINS - 1)
    rows = np.arange(len(shares))
    inside = np.asarray(shares, np.float64)[rows, place]
    before = total[rows, place] - inside
    part = np.clip((level - before) / np.maximum(inside, 1e-12), 0, 1)
    return edge[place] + part * (edge[place + 1] - edge[place])


@torch.no_grad()
def flux(field: Tensor, pixel_cm: float) -> Tensor:
    """Unsigned flux and net over unsigned flux of whole patches.

    All pixels count, with no threshold, so that both are defined for every
    patch; one that is exactly 0 has no flux and is balanced.

    Parameters
    ----------
    field : Tensor, (B, H, W)
        Radial or line-of-sight field, gauss.
    pixel_cm : float
        Side of a pixel, cm.

    Returns
    -------
    Tensor of float64, (B, 2)
        USFLUX in Mx, and the share between -1 and 1.
    """
    nothing = torch.zeros_like(field)
    vector = torch.stack([field, nothing, nothing], dim=1)
    everywhere = torch.ones_like(field, dtype=torch.bool)
    found = measure(vector, pixel_cm, everywhere, names=("USFLUX", "FLUXIMB"))
    return torch.stack([found["USFLUX"], found["FLUXIMB"]], dim=1).nan_to_num(0.0)
