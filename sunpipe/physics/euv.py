"""Numbers that describe an EUV image: mean log intensity, bright and dark areas, spectral slope.

A full disk (an image wider than the Sun) is measured inside `RIM` of the solar radius, where
the corona is seen against the disk; any other image in all of it.
"""

from __future__ import annotations

import math

import torch

from sunpipe.errors import DataError

Tensor = torch.Tensor
SOLAR_RADIUS_CM = 6.96e10  # RSUN_REF of HMI and AIA
RIM = 0.95  # of the solar radius: beyond it the corona is seen from the side
FAINT = 1.0  # DN/s; added before the logarithm, below the read-out noise of AIA
DARK = 0.35  # coronal hole: below this share of the median (Hofmeister et al. 2017, ApJ 835, 268)
BRIGHT = 3.0  # active region: above this multiple of the median; ours, see docs/physics.md
SLOPE_K = (1, 10)  # waves per side between which the spectrum is fitted
SMALLEST = 24  # pixels a side; below it fewer than ten wavenumbers are seen


def _area(side: tuple[int, int], pixel_cm: Tensor, device: torch.device) -> Tensor:
    """Pixels that count, (B, H, W) bool."""
    height, width = side
    rows = torch.arange(height, device=device) - (height - 1) / 2
    columns = torch.arange(width, device=device) - (width - 1) / 2
    distance = torch.hypot(rows[:, None], columns[None, :])
    radius = SOLAR_RADIUS_CM / pixel_cm.to(device)
    inside = distance[None] <= RIM * radius[:, None, None]
    whole = radius * 2 <= min(height, width)
    return inside | ~whole[:, None, None]


def spectral_slope(log_intensity: Tensor, area: Tensor) -> Tensor:
    """Slope of the azimuthally averaged power spectrum, (B,) float64.

    The power of the mean-free logarithm, 0 outside `area`, is averaged over rings one
    wavenumber wide; log10 P is fitted against log10 k by least squares, as for the
    spectra of arXiv:2502.05351.

    Parameters
    ----------
    log_intensity : Tensor, (B, H, W)
    area : Tensor, (B, H, W) bool
    """
    wide = log_intensity.double()
    count = area.sum(dim=(1, 2)).clamp(min=1)
    mean = (wide * area).sum(dim=(1, 2)) / count
    # Both halves of the plane: half of it would count its edge twice, and turn with the image.
    power = torch.fft.fft2((wide - mean[:, None, None]) * area).abs().square()
    height, width = wide.shape[1:]
    rows = torch.fft.fftfreq(height, device=wide.device) * height
    columns = torch.fft.fftfreq(width, device=wide.device) * width
    ring = torch.hypot(rows[:, None], columns[None, :]).round().long().flatten()
    first, last = SLOPE_K
    totals = wide.new_zeros(len(wide), int(ring.max()) + 1)
    totals = totals.index_add(1, ring, power.flatten(1))[:, first : last + 1]
    sizes = torch.bincount(ring)[first : last + 1]
    x = torch.log10(torch.arange(first, last + 1, device=wide.device, dtype=torch.float64))
    y = torch.log10(totals / sizes)  # -inf where nothing varies, so that the slope is undefined
    x = x - x.mean()
    return ((y - y.mean(dim=1, keepdim=True)) * x).sum(dim=1) / x.square().sum()


def measure_euv(intensity: Tensor, pixel_cm: Tensor, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    """Measure images of one EUV channel.

    Parameters
    ----------
    intensity : Tensor, (B, H, W)
        DN/s, the Sun's centre in the middle of a full disk; NaN is no light.
    pixel_cm : Tensor, (B,)
        Side of a pixel in cm: tells where the limb is.
    kinds : tuple of str
        Of `sunpipe.physics.measurable.EUV`.

    Returns
    -------
    dict of str to Tensor (B,) float64
        NaN where undefined: images without light (median 0 or less), a slope of an
        image without structure or smaller than `SMALLEST`.

    Raises
    ------
    DataError
        An image too wide for its pixel: nothing would count.
    """
    light = torch.nan_to_num(intensity, nan=0.0, posinf=0.0, neginf=0.0).clamp(min=0).double()
    area = _area(tuple(light.shape[1:]), pixel_cm, light.device)  # type: ignore[arg-type]
    count = area.sum(dim=(1, 2)).double()
    if bool((count == 0).any()):
        raise DataError("pixel_cm is larger than the Sun; check the dataset")
    # NaN outside leaves the median to what counts.
    median = light.masked_fill(~area, math.nan).flatten(1).nanmedian(dim=1).values
    lit = median > 0
    logarithm = torch.log10(light + FAINT)
    found: dict[str, Tensor] = {}
    for kind in kinds:
        if kind == "LOGI":
            value = (logarithm * area).sum(dim=(1, 2)) / count
        elif kind == "ARFRAC":
            bright = light > BRIGHT * median[:, None, None]
            value = (bright & area).sum(dim=(1, 2)) / count
        elif kind == "CHFRAC":
            dark = light < DARK * median[:, None, None]
            value = (dark & area).sum(dim=(1, 2)) / count
        elif min(light.shape[1:]) < SMALLEST:
            value = torch.full_like(count, math.nan)
        else:
            value = spectral_slope(logarithm, area)
        value = value.double()
        found[kind] = value.masked_fill(~lit | ~value.isfinite(), math.nan)
    return found
