"""Power spectra of physical fields, averaged over directions, and how far two are apart.

Window and decibels as in the spectra of arXiv:2106.12423, appendix A; the zero
padding there only interpolates and is left out.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

Tensor = torch.Tensor
Floats = NDArray[np.float64]
KAISER_BETA = 8.0
PER_OCTAVE = 4  # bands, where there are so many whole wavenumbers
SILENCE = 1e-10  # of the mean real power: less counts as that, so no error is beyond 100 dB
PIXELS_AT_ONCE = 2**24


@lru_cache(maxsize=8)
def bands(side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bands of whole wavenumbers k = 1 .. `side` / 2, waves per image side.

    Returns
    -------
    band : ndarray, (side / 2 + 1,)
        Band of each k; -1 for 0.
    octave : ndarray, (bands,)
        Octave of each band: o holds k from 2^o to below 2^(o + 1); the last
        holds `side` / 2 too.
    """
    top = side // 2
    last = math.ceil(math.log2(top)) - 1
    octave = [min(int(k).bit_length() - 1, last) for k in range(1, top + 1)]
    part = [min(int(PER_OCTAVE * (math.log2(k) - o)), PER_OCTAVE - 1)
            for k, o in zip(range(1, top + 1), octave, strict=True)]  # fmt: skip
    pairs = list(zip(octave, part, strict=True))
    listed = sorted(set(pairs))
    band = np.array([-1, *(listed.index(pair) for pair in pairs)], np.int64)
    return band, np.array([o for o, _ in listed], np.int64)


@lru_cache(maxsize=4)
def _modes(side: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """For each band its modes of ``rfft2`` with the weights of their mean; the window."""
    ky = np.fft.fftfreq(side) * side
    kx = np.arange(side // 2 + 1)
    ring = np.rint(np.hypot(ky[:, None], kx[None, :])).astype(np.int64)
    band = np.where(ring <= side // 2, bands(side)[0][np.minimum(ring, side // 2)], -1).ravel()
    # rfft2 leaves out the mirror images of all columns but the first and the last
    twice = np.where((kx == 0) | (2 * kx == side), 1.0, 2.0)
    twice = np.broadcast_to(twice, ring.shape).ravel()
    parts = []
    for one in range(len(bands(side)[1])):
        place = np.flatnonzero(band == one)
        weight = twice[place] / twice[place].sum()
        parts.append((torch.from_numpy(place), torch.from_numpy(weight)))
    line = np.kaiser(side, KAISER_BETA)
    return parts, torch.from_numpy(np.outer(line, line))


@torch.no_grad()
def band_power(fields: Tensor) -> Tensor:
    """Mean power of a Fourier mode in each band.

    Each image has its window-weighted mean taken out, so that it does not leak
    into the lowest bands, and is weighted with a Kaiser window. The power over
    all modes adds up to the window's weighted mean square of the field; white
    noise of variance v has ``v / H^2`` in every band.

    Parameters
    ----------
    fields : Tensor, (B, C, H, H)
        Physical units.

    Returns
    -------
    Tensor of float64, (B, C, bands)
        In the square of the unit of the channel; on the device of `fields`.
    """
    side = fields.shape[-1]
    device, (modes, window) = fields.device, _modes(side)
    places = [(place.to(device), weight.to(device)) for place, weight in modes]
    window = window.to(device)
    energy = window.square().sum()
    flat = fields.reshape(-1, side, side)
    parts = []
    for start in range(0, len(flat), max(1, PIXELS_AT_ONCE // side**2)):
        some = flat[start : start + max(1, PIXELS_AT_ONCE // side**2)].double()
        mean = (some * window).sum(dim=(1, 2), keepdim=True) / window.sum()
        power = torch.fft.rfft2((some - mean) * window).abs().square().flatten(1)
        found = [power[:, place] @ weight for place, weight in places]
        parts.append(torch.stack(found, dim=1) / (energy * side**2))
    return torch.cat(parts).reshape(*fields.shape[:2], -1)


def decibels(real: Floats, fake: Floats) -> Floats:
    """``10 log10(fake / real)`` of mean powers (C, bands); 0 where they are equal."""
    least = SILENCE * real.mean(axis=-1, keepdims=True) + np.finfo(np.float64).tiny
    return 10 * np.log10((fake + least) / (real + least))


def octave_errors(real: Floats, fake: Floats, side: int) -> tuple[Floats, Floats]:
    """Error of mean powers (C, bands) per octave of k.

    Returns
    -------
    size : ndarray, (octaves,)
        Root mean square over channels and the bands of an octave, dB.
    sign : ndarray, (octaves,)
        Mean over the same, dB: above 0 is too much power.
    """
    error, octave = decibels(real, fake), bands(side)[1]
    each = [error[:, octave == one] for one in range(int(octave.max()) + 1)]
    size = np.array([np.sqrt(np.square(one).mean()) for one in each])
    return size, np.array([one.mean() for one in each])
