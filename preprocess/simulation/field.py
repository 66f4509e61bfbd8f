"""The field of a region at one time: sources below the surface, fine structure, twist.

The radial field is that of submerged monopoles, ``Bz = q d / (2 pi (r^2 + d^2)^(3/2))``
with flux q and depth d, whose Fourier transform is ``q exp(-k d)`` (as in Demoulin et
al. 1992, A&A 260, 488), broken up where it is weak as flux tubes break it up. The
horizontal field is the linear force-free one over that Bz (Nakagawa and Raadu 1972, Sol.
Phys. 25, 127; Alissandrakis 1981, A&A 100, 197, eq. 14): ``Jz = alpha Bz`` in every
pixel, and alpha = 0 is the potential field. Modes with k < abs(alpha) have no decaying
solution; they keep their current and lose the rest.

Everything is done in Fourier space on a padded periodic grid. x is west, y north, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from preprocess.simulation.region import PIXEL_MM, Region, Sources

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]

SHALLOWEST = 2.5  # pixels: below it a monopole is not resolved
DEPTHS = 4  # per octave
SATURATION_G = 3600.0
GRAIN_PX = 2.0  # of the fine structure: HMI resolves about two pixels
CLUMP_PX, CLUMP_SHARE = 5.0, 0.4  # plage gathers along supergranules; share of the variance
GRAIN_LIFE_S = 86400.0
GRAIN_SIGMA, GRAIN_FIELD_G = 1.4, 350.0
NETWORK_PX = 2.0
CELL_PX = 35.0  # a supergranule, 25 to 30 Mm across
CENTROID_PX = 0.01  # how closely the wanted centroids are met
FLUX_SHARE = 0.02  # how closely before the last scaling
TRIES = 15


@dataclass(frozen=True)
class Truth:
    """What a region is at one time, without noise and background.

    Attributes
    ----------
    flux_mx, alpha, separation_mm, tilt_deg, imbalance : float
        As in `Region`, at this time.
    growth : float
        Share of the flux that has emerged.
    """

    flux_mx: float
    alpha: float
    separation_mm: float
    tilt_deg: float
    imbalance: float
    growth: float


@dataclass(frozen=True)
class Grid:
    """Wavenumbers of a padded grid, radians per pixel: ky (h, 1), kx (1, w), k (h, w)."""

    shape: tuple[int, int]
    ky: Real
    kx: Real
    k: Real


@lru_cache(maxsize=2)
def grid(shape: tuple[int, int]) -> Grid:
    """The grid for patches of `shape`: half as large again, so that images do not meet."""
    padded = tuple(fft.next_fast_len(size + max(size // 2, 64), real=True) for size in shape)
    ky = (2 * math.pi * fft.fftfreq(padded[0])).astype(np.float32)[:, None]
    kx = (2 * math.pi * fft.rfftfreq(padded[1])).astype(np.float32)[None, :]
    return Grid((padded[0], padded[1]), ky, kx, np.hypot(ky, kx))


def _emerged(sources: Sources, growth: float) -> NDArray[np.float64]:
    """Shares of the polarity's flux that stand at the surface, sum 1."""
    part = np.clip((growth - sources.onset) / (1.0 - sources.onset), 1e-3, 1.0)
    share = sources.share * part
    return share / share.sum()


def _decays(where: Grid, wanted: list[int]) -> dict[int, Real]:
    """``exp(-k d)`` for depths of ``SHALLOWEST * 2^(n / DEPTHS)`` pixels; octaves by squaring."""
    found: dict[int, Real] = {}
    for n in range(max(wanted) + 1):
        if any(other >= n and (other - n) % DEPTHS == 0 for other in wanted):
            if n < DEPTHS:
                found[n] = np.exp(where.k * np.float32(-SHALLOWEST * 2 ** (n / DEPTHS)))
            else:
                found[n] = found[n - DEPTHS] ** 2
    return found


def _spectra(
    clouds: list[tuple[Sources, float]], growth: float, scale: float, shape: tuple[int, int],
    pixel_cm: float,
) -> list[Complex]:  # fmt: skip
    """Transforms of the Bz (gauss) of polarities with given flux in Mx, both positive.

    Depths are rounded down the scale, so fields stay below the wanted peak.
    """
    where = grid(shape)
    levels = []
    for sources, flux in clouds:
        charge = flux * _emerged(sources, growth)
        depth = np.sqrt(charge / (2 * math.pi * sources.peak_g)) / pixel_cm  # of the peak field
        with np.errstate(divide="ignore"):
            level = np.ceil(DEPTHS * np.log2(depth / SHALLOWEST))
        levels.append((charge / pixel_cm**2, np.clip(level, 0, 8 * DEPTHS).astype(int)))
    decays = _decays(where, sorted({int(n) for _, level in levels for n in level}))
    centre = (0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1))
    spectra = []
    for (sources, _), (charge, level) in zip(clouds, levels, strict=True):
        places = sources.xy * scale / PIXEL_MM + centre
        total = np.zeros((where.shape[0], where.kx.shape[1]), np.complex64)
        for n in np.unique(level):
            some = level == n
            east_west = np.exp(-1j * where.kx * places[some, :1]).astype(np.complex64)
            north_south = np.exp(-1j * where.ky * places[some, 1]).astype(np.complex64)
            total += (north_south * charge[some].astype(np.float32) @ east_west) * decays[int(n)]
        spectra.append(total)
    return spectra


def _noise(seed: tuple[int, ...], shape: tuple[int, int], width_px: float) -> Real:
    """A smooth random field of unit variance."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = gaussian_filter(white, width_px, mode="wrap", truncate=3.0)
    return np.asarray(smooth / smooth.std(), np.float32)


def texture(seed: tuple[int, ...], shape: tuple[int, int], seconds: float) -> Real:
    """Fine structure of one HARP at a time: it changes within about a day. (H, W)."""
    phase = 2 * math.pi * seconds / (4 * GRAIN_LIFE_S)
    fine, clumps = np.float32(math.sqrt(1 - CLUMP_SHARE)), np.float32(math.sqrt(CLUMP_SHARE))
    one, other = (
        fine * _noise((*seed, part, 0), shape, GRAIN_PX)
        + clumps * _noise((*seed, part, 1), shape, CLUMP_PX)
        for part in (0, 1)
    )
    mixed = np.float32(math.cos(phase)) * one + np.float32(math.sin(phase)) * other
    return np.asarray(mixed, np.float32)


def network(seed: tuple[int, ...], shape: tuple[int, int], rms_g: float) -> Real:
    """Mixed polarities of the quiet Sun along supergranules, gauss rms `rms_g`. (H, W)."""
    grains = _noise((*seed, 0), shape, NETWORK_PX) ** 3  # the cube has rare strong grains
    small = tuple(max(4, size // 8) for size in shape)
    cells = _noise((*seed, 1), (small[0], small[1]), CELL_PX / 8 / 3)
    edges = np.exp(-2.0 * np.abs(cells))  # strong where the coarse field changes sign
    rows = np.minimum(np.arange(shape[0]) // 8, small[0] - 1)
    columns = np.minimum(np.arange(shape[1]) // 8, small[1] - 1)
    field = grains * gaussian_filter(edges[rows[:, None], columns], 4.0)
    return field * np.float32(rms_g / field.std())


def _centroids(bz: Real) -> tuple[NDArray[np.float64], NDArray[np.float64], list[float]]:
    """Flux-weighted (x, y) of the positive and the negative pixels, and their sums."""
    places, sums = [], []
    for part in (np.maximum(bz, 0), np.maximum(-bz, 0)):
        rows, columns = part.sum(1, dtype=np.float64), part.sum(0, dtype=np.float64)
        total = float(rows.sum())
        places.append(np.array([columns @ np.arange(len(columns)), rows @ np.arange(len(rows))]))
        places[-1] /= total
        sums.append(total)
    return places[0], places[1], sums


def _structured(bz: Real, grain: Real) -> Real:
    """Break weak fields up into grains, and saturate smoothly what becomes too strong."""
    sigma = np.float32(GRAIN_SIGMA) / (1 + np.abs(bz) / np.float32(GRAIN_FIELD_G))
    bz = bz * np.exp(sigma * grain - np.float32(0.5) * sigma * sigma)
    return np.float32(SATURATION_G) * np.tanh(bz / np.float32(SATURATION_G))


def radial_field(
    region: Region, seconds: float, grain: Real, pixel_cm: float
) -> tuple[Real, Truth]:
    """Bz of a region in gauss (H, W), and its truth.

    Each polarity is moved as a whole until its centroid, cancellation and fine
    structure included, is where the region's separation and tilt want it, and scaled to
    its flux. Polarities that overlap too much to come so near keep the separation and
    tilt that they have reached; the truth says so.
    """
    growth, flux = region.growth(seconds), region.flux_at(seconds)
    separation = region.separation_at(seconds)
    where, shape = grid(region.shape), region.shape
    scale = separation / region.separation_mm
    sign = region.west_sign
    halves = [0.5 * flux, 0.5 * flux]
    pair = [region.west, region.east] if sign > 0 else [region.east, region.west]
    spectra = _spectra(list(zip(pair, halves, strict=True)), growth, scale, shape, pixel_cm)
    angle = math.radians(region.tilt_deg)
    axis = sign * separation * 1e8 / pixel_cm * np.array([math.cos(angle), math.sin(angle)])
    centre = np.array([0.5 * (shape[1] - 1), 0.5 * (shape[0] - 1)])
    wanted = [centre + 0.5 * axis, centre - 0.5 * axis]
    moved, gains = [0.5 * axis, -0.5 * axis], [1.0, 1.0]
    total = flux / pixel_cm**2  # gauss pixels
    sides = [0.5 * (1 + region.imbalance) * total, 0.5 * (1 - region.imbalance) * total]
    for _ in range(TRIES):
        both = [spectrum * (gain * np.exp(-1j * where.ky * move[1])
                            * np.exp(-1j * where.kx * move[0])).astype(np.complex64)
                for spectrum, move, gain in zip(spectra, moved, gains, strict=True)]  # fmt: skip
        smooth = fft.irfft2(both[0] - both[1], s=where.shape)[: shape[0], : shape[1]]
        bz = _structured(smooth, grain)
        positive, negative, sums = _centroids(bz)
        misses = [wanted[0] - positive, wanted[1] - negative]
        lacks = [side / found for side, found in zip(sides, sums, strict=True)]
        if (
            max(np.abs(miss).max() for miss in misses) < CENTROID_PX
            and max(abs(lack - 1) for lack in lacks) < FLUX_SHARE
        ):
            break
        gains = [min(gain * lack, 10.0) for gain, lack in zip(gains, lacks, strict=True)]
        moved = [move + miss for move, miss in zip(moved, misses, strict=True)]
    reached = (positive - negative) * pixel_cm / 1e8
    bz = np.where(bz > 0, bz * np.float32(sides[0] / sums[0]), bz * np.float32(sides[1] / sums[1]))
    tilt = math.degrees(math.atan2(sign * reached[1], sign * reached[0]))
    truth = Truth(flux, region.alpha, float(np.hypot(*reached)), tilt, region.imbalance, growth)
    return bz, truth


def vector_field(
    bz: Real, alpha: float, pixel_cm: float, blur: tuple[float, float, float] | None = None
) -> Real:
    """Bx, By, Bz (3, H, W) of the linear force-free field over `bz`, in gauss.

    Parameters
    ----------
    bz : ndarray (H, W)
        Gauss; zero outside.
    alpha : float
        1/Mm.
    pixel_cm : float
    blur : (float, float, float), optional
        Variances xx, xy, yy in pixels of a Gaussian point spread function.
    """
    where, shape = grid((bz.shape[0], bz.shape[1])), bz.shape
    spectrum = fft.rfft2(bz, s=where.shape)
    if blur is not None:
        xx, xy, yy = (np.float32(value) for value in blur)
        spread = xx * where.kx**2 + 2 * xy * where.kx * where.ky + yy * where.ky**2
        spectrum *= np.exp(np.float32(-0.5) * spread)
    turn = np.float32(alpha * pixel_cm / 1e8)  # radians per pixel
    square = where.k**2
    square[0, 0] = 1.0  # a uniform Bz has no horizontal field
    flow = np.sqrt(np.maximum(where.k**2 - turn**2, 0)) / square
    curl = turn / square
    flow[0, 0] = curl[0, 0] = 0.0
    lines = -1j * spectrum
    parts = [
        lines * (where.kx * flow - where.ky * curl),
        lines * (where.ky * flow + where.kx * curl),
    ]
    images = [fft.irfft2(part, s=where.shape)[: shape[0], : shape[1]] for part in parts]
    radial = bz if blur is None else fft.irfft2(spectrum, s=where.shape)[: shape[0], : shape[1]]
    return np.stack([*images, radial]).astype(np.float32, copy=False)
