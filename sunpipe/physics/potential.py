"""The potential (current-free) field above a magnetogram, from its Br alone."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from sunpipe.physics.derivatives import central

Tensor = torch.Tensor
JSOC_DEPTH = 0.001  # pixels
JSOC_WINDOW = range(-10, 10)  # half-open: JSOC sums 20 x 20 pixels, not 21 x 21


def _fast_length(least: int) -> int:
    """Smallest length from `least` up that has no prime factor above 5: fast to transform."""
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


def _corners(x: Tensor, y: Tensor) -> Tensor:
    """Integral over one pixel centred at (x, y) of x / (2 pi r^3): the field of its flux."""

    def primitive(a: Tensor, b: Tensor) -> Tensor:
        # -asinh(b/|a|) differs from -log(b + r) by a function of a alone, which cancels.
        return -torch.asinh(b / a.abs())

    return (
        primitive(x + 0.5, y + 0.5)
        - primitive(x + 0.5, y - 0.5)
        - primitive(x - 0.5, y + 0.5)
        + primitive(x - 0.5, y - 0.5)
    ) / (2 * math.pi)


@lru_cache(maxsize=4)
def _kernel(height: int, width: int, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    """Spectrum of the (x, y) field of one unit pixel at all offsets of the image, (2, h, w')."""
    shape = (_fast_length(2 * height - 1), _fast_length(2 * width - 1))
    with torch.inference_mode(False), torch.no_grad():  # outlives the caller's mode
        y, x = (
            torch.fft.ifftshift(torch.arange(n, dtype=torch.float64, device=device) - n // 2)
            for n in shape
        )
        field = torch.stack((_corners(x[None], y[:, None]), _corners(y[:, None], x[None])))
        return torch.fft.rfft2(field), shape


def potential_field(bz: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal potential field of an isolated patch.

    Each pixel is a uniform patch of flux on the plane; its field in the half
    space is ``B(r) = Bz/(2 pi) * integral (r - r') / |r - r'|^3 dS'`` (Sakurai
    1982, Solar Physics 76, 301, eq. for a plane boundary), integrated in closed
    form and summed over all pixels by FFT, padded so that nothing wraps round.
    Outside the patch Br is taken as 0.

    Parameters
    ----------
    bz : Tensor, (B, H, W)
        Radial field in gauss; NaN counts as 0.

    Returns
    -------
    bx, by : Tensor, (B, H, W)
        Gauss, in the pixel centres. No pixel size enters: the solution is scale free.
    """
    height, width = bz.shape[1:]
    kernel, shape = _kernel(height, width, bz.device)
    spectrum = torch.fft.rfft2(bz.nan_to_num(0.0), s=shape)
    field = torch.fft.irfft2(spectrum[:, None] * kernel, s=shape)
    bx, by = field[:, :, :height, :width].unbind(1)
    return bx, by


def jsoc_potential_field(bz: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal potential field as in the published SHARP keywords.

    Monopoles 0.001 pixel below the surface, ``phi = sum Bz dz / sqrt(r^2 + dz^2)``
    over offsets -10 .. +9 pixels, then minus central differences, 0 on the frame.
    The depth makes phi nearly Bz itself, so this is far from a potential field;
    it is here to reproduce MEANPOT, TOTPOT, MEANSHR and SHRGT45 of the headers.

    Parameters
    ----------
    bz : Tensor, (B, H, W)
        Radial field in gauss; NaN counts as 0.
    """
    height, width = bz.shape[1:]
    shape = (_fast_length(height + 20), _fast_length(width + 20))
    offset = torch.tensor(list(JSOC_WINDOW), dtype=torch.float64, device=bz.device)
    distance = (offset[:, None] ** 2 + offset[None] ** 2 + JSOC_DEPTH**2).sqrt()
    kernel = torch.zeros(shape, dtype=torch.float64, device=bz.device)
    # phi[p] = sum over o of Bz[p + o] k[o]: a correlation, so offsets enter mirrored.
    rows = (-offset.long()) % shape[0]
    columns = (-offset.long()) % shape[1]
    kernel[rows[:, None], columns[None]] = JSOC_DEPTH / distance
    spectrum = torch.fft.rfft2(bz.nan_to_num(0.0), s=shape) * torch.fft.rfft2(kernel)
    phi = torch.fft.irfft2(spectrum, s=shape)[:, :height, :width]
    phi = torch.where(bz.isnan(), 0.0, phi)
    dx, dy = central(phi)
    return -dx.nan_to_num(0.0), -dy.nan_to_num(0.0)
