"""How far two sets of numbers, or two sets of images, are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _both(a: Floats, b: Floats) -> tuple[Floats, Floats] | None:
    """The finite values of both sides, or None when one side has none."""
    a, b = (x[np.isfinite(x)] for x in (a, b))
    return (a, b) if len(a) and len(b) else None


def kolmogorov_smirnov(a: Floats, b: Floats) -> float | None:
    """Largest difference of the two empirical distribution functions, 0 to 1.

    Parameters
    ----------
    a, b : ndarray, shapes (N,) and (M,)
        Values that are not finite are left out; None when one side has none.
    """
    from scipy.stats import ks_2samp

    sides = _both(a, b)
    return None if sides is None else float(ks_2samp(*sides, method="asymp").statistic)


def wasserstein(a: Floats, b: Floats) -> float | None:
    """First Wasserstein distance in the unit of the values.

    Parameters
    ----------
    a, b : ndarray, shapes (N,) and (M,)
        Values that are not finite are left out; None when one side has none.
    """
    from scipy.stats import wasserstein_distance

    sides = _both(a, b)
    return None if sides is None else float(wasserstein_distance(*sides))


def radial_power(fields: NDArray[Any]) -> Floats:
    """Mean power over rings of whole wavenumbers 1 to H/2 - 1, of each image.

    Each image is weighted by a Hann window with the mean removed, so that its
    edges do not ring; the power is that of the windowed field, divided by the
    window's mean square.

    Parameters
    ----------
    fields : ndarray, shape (N, H, H)

    Returns
    -------
    ndarray, shape (N, H // 2 - 1)
        In the square of the unit of `fields`, per Fourier mode.
    """
    side = fields.shape[-1]
    hann = np.hanning(side + 2)[1:-1]
    window = np.outer(hann, hann)
    centred = np.asarray(fields, np.float64)
    centred = (centred - centred.mean(axis=(1, 2), keepdims=True)) * window
    power = np.abs(np.fft.fft2(centred)) ** 2 / side**4 / np.mean(window**2)
    wave = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(wave[:, None], wave[None, :])).astype(int).ravel()
    many = np.bincount(ring)[1 : side // 2]
    return np.stack([np.bincount(ring, one.ravel())[1 : side // 2] / many for one in power])
