"""The potential (current-free) field above a magnetogram, from its Br alone."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

Tensor = torch.Tensor
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
SPLIT = 2.0  # pixels, sigma of the Gaussian
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


def _padded(size: int) -> int:
    """Length at which no pixel of the image sees another through the wrap-round."""
    return _fast_length(2 * size - 1 + round(8 * SPLIT))


def _smooth_field(x: Tensor, y: Tensor) -> Tensor:
    """Field along x in the plane of one unit of flux spread as a Gaussian.

    ``integral of k J1(k r) exp(-k^2 s^2 / 2) dk / (2 pi)`` (the derivative by r
    of Gradshteyn and Ryzhik 6.618.1 for J0); x / (2 pi r^3) far away.
    """
    a = (x.square() + y.square()) / (4 * SPLIT**2)
    bessel = torch.special.i0e(a) - torch.special.i1e(a)
    return x * bessel / (4 * math.sqrt(2 * math.pi) * SPLIT**3)


@lru_cache(maxsize=4)
def _kernel(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[int, int]]:
    """Spectra of the x and y field of one unit of flux, (2, h, w'), and the padded shape (h, w)."""
    shape = (_padded(height), _padded(width))
    with torch.inference_mode(False), torch.no_grad():  # outlives the caller's mode
        y, x = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device) for n in shape)
        far = torch.fft.rfft2(
            torch.stack((_smooth_field(x, y[:, None]), _smooth_field(y[:, None], x)))
        )
        ky = 2 * math.pi * torch.fft.fftfreq(shape[0], dtype=torch.float64, device=device)[:, None]
        kx = 2 * math.pi * torch.fft.rfftfreq(shape[1], dtype=torch.float64, device=device)
        k = torch.hypot(kx, ky)
        rest = -torch.expm1(-0.5 * (k * SPLIT).square()) * torch.exp(-36 * (k / math.pi) ** 12)
        near = torch.stack((kx.expand_as(k), ky.expand_as(k))) * rest / k.clamp(min=1e-9)
        return (far - 1j * near).to(COMPLEX[dtype]), shape


def potential_field(bz: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal potential field of an isolated patch.

    ``B(r) = 1/(2 pi) * integral of Bz(r') (r - r') / |r - r'|^3 dS'`` over the patch
    (Schmidt 1964, NASA SP-50, 107; Sakurai 1982, Solar Physics 76, 301), with Br
    taken as 0 outside. The kernel is split as Ewald did: flux smeared into Gaussians
    is summed in real space, padded so that nothing wraps round; the short-ranged
    rest is -i k/|k| in Fourier space, where it is exact for what the pixels
    resolve, faded out towards the Nyquist frequency.

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
    kernel, shape = _kernel(height, width, bz.dtype, bz.device)
    spectrum = torch.fft.rfft2(bz.nan_to_num(0.0), s=shape)
    field = torch.fft.irfft2(spectrum[:, None] * kernel, s=shape)
    bx, by = field[:, :, :height, :width].unbind(1)
    return bx, by


@lru_cache(maxsize=4)
def _jsoc_kernel(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, tuple[int, int]]:
    """Spectrum of JSOC's window, (h, w'), and the padded shape (h, w)."""
    reach = len(JSOC_WINDOW)
    shape = (_fast_length(height + reach), _fast_length(width + reach))
    with torch.inference_mode(False), torch.no_grad():  # outlives the caller's mode
        offset = torch.tensor(list(JSOC_WINDOW), dtype=torch.float64, device=device)
        distance = (offset[:, None] ** 2 + offset[None] ** 2 + JSOC_DEPTH**2).sqrt()
        kernel = torch.zeros(shape, dtype=torch.float64, device=device)
        # phi[p] = sum over o of Bz[p + o] k[o]: a correlation, so offsets enter mirrored.
        rows = (-offset.long()) % shape[0]
        columns = (-offset.long()) % shape[1]
        kernel[rows[:, None], columns[None]] = JSOC_DEPTH / distance
        return torch.fft.rfft2(kernel).to(COMPLEX[dtype]), shape


def jsoc_potential(bz: Tensor, valid: Tensor) -> Tensor:
    """Magnetic potential as in the published SHARP keywords.

    Monopoles 0.001 pixel below the surface, ``phi = sum Bz dz / sqrt(r^2 + dz^2)``
    over offsets -10 .. +9 pixels; the field is minus its central differences, 0 on
    the frame. The depth makes phi nearly Bz itself, so this is far from a potential
    field; it is here to reproduce MEANPOT, TOTPOT, MEANSHR and SHRGT45 of the
    headers. The 400 terms of each pixel are summed as a product of spectra, which
    changes the 13th digit.

    Parameters
    ----------
    bz : Tensor, (B, H, W)
        Radial field in gauss, 0 where not valid.
    valid : Tensor, (B, H, W) bool

    Returns
    -------
    Tensor, (B, H, W)
        In gauss times pixels; 0 where not valid.
    """
    height, width = bz.shape[1:]
    kernel, shape = _jsoc_kernel(height, width, bz.dtype, bz.device)
    spectrum = torch.fft.rfft2(bz, s=shape).mul_(kernel)
    phi = torch.fft.irfft2(spectrum, s=shape)[:, :height, :width]
    return torch.where(valid, phi, 0.0)
