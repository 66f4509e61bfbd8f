"""How HMI would see a field: place on the disc, point spread, noise, ambiguity, maps.

The field is turned into the line of sight and the plane of the sky, where noise arises,
and back. Noise of the line-of-sight component is normal. Of the transverse field HMI
measures linear polarisation, which goes with its square: ``Q + iU ~ Bt^2 exp(2 i phi)``
in the weak-field limit (Landi Degl'Innocenti and Landolfi 2004, Polarization in Spectral
Lines, section 9.6). Normal noise there makes a positive floor where the field is weak
and little scatter where it is strong. Both grow towards the limb as the photon noise of
a grey atmosphere, ``I(mu) = I(1) (2 + 3 mu) / 5``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from preprocess.simulation.ephemeris import Observer

Real = NDArray[np.float32]

PSF_SIGMA_PX = 0.8  # 0.4 arcsec: HMI's point spread has a FWHM of about 0.95 arcsec
LEAST_MU = 0.2  # foreshortening of the blur stops here
INVERSION_SHARE = 0.02  # scatter of strong fields; errors of HARP 377 above 1 kG have 29 G
# Mean of |n|^(1/2) for complex normal n of unit variance per part: 2^(1/4) Gamma(5/4).
ROOT_MEAN = 2**0.25 * math.gamma(1.25)
CONFIDENT_G, ACTIVE_G, PATCH_G = 150.0, 100.0, 14.0
INSIDE, WEAK, STRONG = 32, 1, 2  # bits of a bitmap (Bobra et al. 2014, table A.5)
CONFIDENT, ANNEALED = 90, 60


@dataclass(frozen=True)
class Noise:
    """At disc centre; all zero for a perfect instrument.

    Attributes
    ----------
    los_g : float
        Standard deviation of the line-of-sight field (6.4 G: Liu et al. 2012, Sol. Phys.
        279, 295).
    transverse_g : float
        Mean transverse field that noise alone gives (HARP 377, quiet pixels: median
        absolute field 72 G).
    network_g : float
        rms of the quiet Sun's radial field.
    psf : bool
        Whether the point spread, foreshortened, is applied.
    """

    los_g: float = 6.4
    transverse_g: float = 75.0
    network_g: float = 11.0
    psf: bool = True


CLEAN = Noise(0.0, 0.0, 0.0, False)


@dataclass(frozen=True)
class Observation:
    """Segments of one record, all (H, W): fields and errors in gauss, codes as integers."""

    br: Real
    bt: Real
    bp: Real
    br_err: Real
    bt_err: Real
    bp_err: Real
    los: Real
    bitmap: NDArray[np.int16]
    conf_disambig: NDArray[np.int16]


def coordinates(
    shape: tuple[int, int], step_deg: float, lon_deg: float, lat_deg: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude of the pixels of a CEA patch in degrees, each (H, W).

    The projection's equator passes through the patch centre at (lon, lat), as in
    SHARPs (FITS WCS paper II, 5.2.2, with the fiducial point there and LONPOLE 180).
    """
    x = np.radians(step_deg) * (np.arange(shape[1]) - 0.5 * (shape[1] - 1))
    sine = np.radians(step_deg) * (np.arange(shape[0]) - 0.5 * (shape[0] - 1))
    sine, x = sine[:, None], x[None, :]
    cosine = np.sqrt(np.maximum(1 - sine**2, 0))
    tilt = math.radians(lat_deg)
    towards = cosine * np.cos(x)
    up = sine * math.cos(tilt) + towards * math.sin(tilt)
    out = towards * math.cos(tilt) - sine * math.sin(tilt)
    lon = np.degrees(np.arctan2(cosine * np.sin(x), out)) + lon_deg
    return lon, np.degrees(np.arcsin(np.clip(up, -1, 1)))


def sky_axes(lon_deg: NDArray, lat_deg: NDArray, seen_from: Observer) -> Real:
    """Line of sight, sky west and sky north in local (west, north, up), (3, 3, H, W).

    For a distant observer (Thompson 2006, A&A 449, 791); ``[0, 2]`` is mu.
    """
    away = np.radians(lon_deg - seen_from.lon)
    lat, b0 = np.radians(lat_deg), math.radians(seen_from.lat)
    sin_a, cos_a, sin_l, cos_l = np.sin(away), np.cos(away), np.sin(lat), np.cos(lat)
    sight = (-math.cos(b0) * sin_a, math.sin(b0) * cos_l - math.cos(b0) * sin_l * cos_a,
             math.sin(b0) * sin_l + math.cos(b0) * cos_l * cos_a)  # fmt: skip
    west = (cos_a, -sin_l * sin_a, cos_l * sin_a)
    north = (math.sin(b0) * sin_a, math.cos(b0) * cos_l + math.sin(b0) * sin_l * cos_a,
             math.cos(b0) * sin_l - math.sin(b0) * cos_l * cos_a)  # fmt: skip
    return np.array([sight, west, north], np.float32)


def point_spread(axes: Real) -> tuple[float, float, float]:
    """Variances xx, xy, yy (pixels) of the point spread on the surface at the patch centre.

    Along the direction to the limb a CCD pixel covers 1 / mu of the surface.
    """
    west, north, mu = axes[0, :, axes.shape[2] // 2, axes.shape[3] // 2].astype(float)
    across = math.hypot(west, north) or 1.0
    stretch = 1.0 / max(mu, LEAST_MU) ** 2 - 1.0
    ex, ey = west / across, north / across
    variance = PSF_SIGMA_PX**2
    return (variance * (1 + stretch * ex * ex), variance * stretch * ex * ey,
            variance * (1 + stretch * ey * ey))  # fmt: skip


def photon_noise(mu: Real) -> Real:
    """Noise relative to disc centre: ``I(mu)^(-1/2)`` of a grey atmosphere."""
    return (np.float32(0.4) + np.float32(0.6) * np.maximum(mu, 0)) ** np.float32(-0.5)


def _transverse(
    west: Real, north: Real, spread: Real, rng: np.random.Generator
) -> tuple[Real, Real, Real]:
    """Noisy transverse field, ambiguity solved towards the truth, and its error."""
    shape = west.shape
    square = (west + 1j * north) ** 2
    square = square + spread * (rng.standard_normal(shape, np.float32)
                                + 1j * rng.standard_normal(shape, np.float32))  # fmt: skip
    found = np.sqrt(square)
    agree = found.real * west + found.imag * north
    found = np.where(agree < 0, -found, found)
    error = spread / np.sqrt(4 * np.abs(square) + np.float32(1.6) * spread + np.float32(1e-6))
    return found.real.astype(np.float32), found.imag.astype(np.float32), error


def observe(field: Real, axes: Real, noise: Noise, rng: np.random.Generator) -> Observation:
    """What HMI would make of a field.

    Parameters
    ----------
    field : ndarray (3, H, W)
        West, north, up, in gauss.
    axes : ndarray (3, 3, H, W)
        From `sky_axes`.
    noise : Noise
    rng : Generator
        Draws the noise; the azimuth's sign is wrong at random where the field is weak.
    """
    shape = field.shape[1:]
    sight, west, north = np.einsum("ijyx,jyx->iyx", axes, field)
    strength = np.sqrt(np.einsum("iyx,iyx->yx", field, field))
    worse = photon_noise(axes[0, 2])
    los = sight.copy()
    if noise == CLEAN:
        sight_err = sky_err = np.zeros(shape, np.float32)
        bx, by, bz = field
    else:
        scatter = np.float32(INVERSION_SHARE) * strength
        sight_err = np.hypot(np.float32(noise.los_g) * worse, scatter)
        los += np.float32(noise.los_g) * worse * rng.standard_normal(shape, np.float32)
        spread = np.float32((noise.transverse_g / ROOT_MEAN) ** 2) * worse**2
        seen = [sight + sight_err * rng.standard_normal(shape, np.float32),
                *_transverse(west, north, spread, rng)]  # fmt: skip
        sky_err = np.hypot(seen.pop(), scatter)
        for part in (1, 2):
            seen[part] = seen[part] + scatter * rng.standard_normal(shape, np.float32)
        weak = np.hypot(seen[1], seen[2]) < noise.transverse_g * worse * 2
        wrong = weak & (rng.random(shape, np.float32) < 0.5)
        sign = np.where(wrong, np.float32(-1), np.float32(1))
        seen = [seen[0], seen[1] * sign, seen[2] * sign]
        bx, by, bz = np.einsum("ijyx,iyx->jyx", axes, np.stack(seen))
    errors = [np.sqrt((axes[0, j] * sight_err) ** 2 + (1 - axes[0, j] ** 2) * sky_err**2)
              for j in range(3)]  # fmt: skip
    bitmap, confidence = maps(los, np.sqrt(bx**2 + by**2 + bz**2))
    return Observation(bz, -by, bx, errors[2], errors[1], errors[0], los, bitmap, confidence)


def maps(los: Real, strength: Real) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Bitmap and confidence of the disambiguation, as SHARPs code them.

    Pixels of the HARP stand where the smoothed line-of-sight field is strong; the
    azimuth is sure where the field is strong in most of 3 x 3 pixels.
    """
    active = uniform_filter(np.abs(los), 3) > ACTIVE_G
    inside = gaussian_filter(np.abs(los), 8.0) > PATCH_G
    bitmap = np.where(active, STRONG, WEAK) + INSIDE * inside
    confidence = np.where(uniform_filter(strength, 3) > CONFIDENT_G, CONFIDENT, ANNEALED)
    return bitmap.astype(np.int16), confidence.astype(np.int16)
