"""One active region: what is drawn for it, and what it has become at a time.

Statistics of the draws, with their sources:

- patch sizes: log-normal in width and height (medians 557 and 272 pixels, sigmas 0.57,
  correlation 0.90), fitted to the 1274 sizes of SHARPs in the table of the SWxTREC
  AIA flare catalogue;
- tilt: Joy's law as 32.1 sin(latitude) degrees (Stenflo and Kosovichev 2012, ApJ 745,
  129) with a scatter of 18 degrees;
- polarity: Hale's law, 8.4 % against it (McClintock, Norton and Li 2014, ApJ 797, 130);
- twist: alpha is normal about -+0.008 /Mm with sigma 0.016 /Mm, so that 69 % of the
  regions obey the hemispheric rule (69 % in the north in Pevtsov, Canfield and Metcalf
  1995, ApJ 440, L109); HARP 377 has 0.040 /Mm;
- flux: log-normal in the mean unsigned field of the patch, median 30 G (the quartiles of
  four HARPs are 9 and 31 G, HARP 377 has 73 G).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

PIXEL_CM = 3.6442e7  # nominal; the exact length depends on the observer
PIXEL_MM = PIXEL_CM / 1e8
DENSEST_G = 1000.0  # mean field of a polarity within 0.4 separations; HARP 377 has 860 G
CYCLE_25 = datetime(2019, 12, 1)
WIDTHS, HEIGHTS = (96, 1600), (72, 900)  # pixels; what is drawn beyond is brought back
_SIZE_MEAN = np.array([6.3227, 5.6061])
_SIZE_SIGMA = np.array([0.573, 0.571])
_SIZE_CORRELATION = 0.90


@dataclass(frozen=True)
class Sources:
    """Submerged monopoles of one polarity.

    Attributes
    ----------
    xy : ndarray (n, 2)
        West and north of the patch centre in Mm, at full separation.
    share : ndarray (n,)
        Of the polarity's flux when fully emerged; sums to 1.
    onset : ndarray (n,)
        Growth at which each begins to emerge.
    peak_g : ndarray (n,)
        Field above it when fully emerged; with the flux it gives the depth.
    """

    xy: NDArray[np.float64]
    share: NDArray[np.float64]
    onset: NDArray[np.float64]
    peak_g: NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """What is drawn once per HARP.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of its patch.
    lat_deg, meridian_deg : float
        Heliographic latitude, and longitude west of the central meridian at the first record.
    flux_mx : float
        Total unsigned flux when fully emerged.
    alpha : float
        Twist: Jz = alpha Bz everywhere, 1/Mm.
    separation_mm : float
        Between the flux-weighted centroids of the polarities when fully emerged.
    tilt_deg : float
        Of the line from the eastern to the western centroid, degrees north of west.
    imbalance : float
        Net over total unsigned flux.
    west_sign : int
        Polarity of the leading (western) part.
    rise_s, age_s : float
        Duration of the emergence, and how long it has lasted at the first record.
    west, east : Sources
    """

    shape: tuple[int, int]
    lat_deg: float
    meridian_deg: float
    flux_mx: float
    alpha: float
    separation_mm: float
    tilt_deg: float
    imbalance: float
    west_sign: int
    rise_s: float
    age_s: float
    west: Sources
    east: Sources

    def growth(self, seconds: float) -> float:
        """Share of the flux that has emerged, ``sin^2`` of the phase, 1 at the end."""
        phase = min((self.age_s + seconds) / self.rise_s, 1.0)
        return math.sin(0.5 * math.pi * phase) ** 2

    def flux_at(self, seconds: float) -> float:
        """Total unsigned flux in Mx, `seconds` after the first record."""
        return self.flux_mx * self.growth(seconds)

    def separation_at(self, seconds: float) -> float:
        """Separation in Mm: the polarities move apart while the flux rises."""
        return self.separation_mm * (0.45 + 0.55 * self.growth(seconds))


def patch_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Rows and columns of a patch, distributed as those of SHARPs."""
    one, two = rng.standard_normal(2)
    two = _SIZE_CORRELATION * one + math.sqrt(1 - _SIZE_CORRELATION**2) * two
    width, height = np.exp(_SIZE_MEAN + _SIZE_SIGMA * np.array([one, two]))
    return (
        int(np.clip(round(height), *HEIGHTS)),
        int(np.clip(round(width), *WIDTHS)),
    )


def _cloud(
    rng: np.random.Generator, spots: int, spot_share: float, spread_mm: float, along: float
) -> Sources:
    """A polarity: a few spots that hold `spot_share` of its flux, and plage about them.

    Fluxes within spots and plage are log-normal; `along` turns the long axis of the cloud.
    """
    plage = int(rng.integers(30, 61))
    share = np.concatenate(
        [spot_share * rng.dirichlet(np.full(spots, 2.0)) if spots else np.empty(0),
         (1 - spot_share * bool(spots)) * _normalised(rng.lognormal(0.0, 0.9, plage))]
    )  # fmt: skip
    offsets = rng.standard_normal((spots + plage, 2)) * spread_mm * np.array([1.0, 0.6])
    offsets[:spots] *= 0.35
    turn = np.array([[math.cos(along), math.sin(along)], [-math.sin(along), math.cos(along)]])
    onset = rng.uniform(0.0, 0.6, spots + plage)
    onset[:spots] *= 0.4
    peak = np.where(
        np.arange(spots + plage) < spots,
        rng.normal(2900.0, 200.0, spots + plage),
        rng.uniform(700.0, 1500.0, spots + plage),
    )
    return Sources(offsets @ turn, _normalised(share), onset, peak)


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / values.sum()


def _joined(one: Sources, other: Sources, share: float, xy: NDArray[np.float64]) -> Sources:
    """A polarity with that of a smaller bipole, of `share` of the flux, at `xy`."""
    return Sources(
        np.concatenate([one.xy, other.xy + xy]),
        np.concatenate([(1 - share) * one.share, share * other.share]),
        np.concatenate([one.onset, 0.3 + 0.7 * other.onset]),
        np.concatenate([one.peak_g, other.peak_g]),
    )


def draw_region(
    rng: np.random.Generator,
    first: datetime,
    drift_deg: float,
    shape: tuple[int, int] | None = None,
) -> Region:
    """Draw the parameters of one region.

    Parameters
    ----------
    rng : Generator
    first : datetime
        TAI of its first record; Hale's law depends on the cycle.
    drift_deg : float
        How far it moves west until the last record; it stays within 65 degrees of the
        central meridian.
    shape : (int, int), optional
        Rows and columns, when they are not to be drawn.
    """
    drawn = patch_shape(rng)
    shape = drawn if shape is None else shape
    height, width = (size * PIXEL_MM for size in shape)
    north = 1 if rng.random() < 0.5 else -1
    lat = north * float(np.clip(rng.normal(16.0, 6.0), 4.0, 33.0))
    meridian = rng.uniform(-65.0, 65.0 - drift_deg)
    joy = -32.1 * math.sin(math.radians(lat))
    tilt = float(np.clip(joy + rng.normal(0.0, 18.0), -70.0, 70.0))
    steep = abs(math.sin(math.radians(tilt)))
    separation = min(
        width * rng.uniform(0.26, 0.45), 0.42 * height / max(steep, 1e-3), 0.95 * height
    )
    hale = 1 if rng.random() > 0.084 else -1
    leading = (-north if first < CYCLE_25 else north) * hale
    alpha = float(np.clip(rng.normal(-0.008 * north, 0.016), -0.05, 0.05))
    mean_g = float(np.clip(rng.lognormal(math.log(30.0), 0.6), 8.0, 80.0))
    along = math.radians(tilt)
    west = _cloud(rng, int(rng.integers(1, 3)), rng.uniform(0.45, 0.7), 0.18 * separation, along)
    east = _cloud(rng, int(rng.integers(0, 4)), rng.uniform(0.2, 0.5), 0.26 * separation, along)
    if rng.random() < 0.45:
        share, turn = rng.uniform(0.08, 0.25), rng.uniform(-math.pi, math.pi)
        place = rng.standard_normal(2) * separation * np.array([0.35, 0.15])
        reach = 0.5 * separation * rng.uniform(0.25, 0.45)
        half = reach * np.array([math.cos(turn), math.sin(turn)])
        # places are relative to the polarity's own centre, which lies half a separation off
        centre = 0.5 * separation * np.array([math.cos(along), math.sin(along)])
        small = [_cloud(rng, 1, 0.6, 0.06 * separation, turn) for _ in range(2)]
        west = _joined(west, small[0], share, place + half - centre)
        east = _joined(east, small[1], share, place - half + centre)
    rise = 86400.0 * rng.uniform(1.5, 4.0)
    return Region(
        shape=shape,
        lat_deg=lat,
        meridian_deg=meridian,
        flux_mx=min(
            mean_g * shape[0] * shape[1] * PIXEL_CM**2,
            DENSEST_G * 2 * math.pi * (0.4e8 * separation) ** 2,
        ),
        alpha=alpha,
        separation_mm=separation,
        tilt_deg=tilt,
        imbalance=float(np.clip(rng.normal(0.0, 0.05), -0.15, 0.15)),
        west_sign=leading,
        rise_s=rise,
        age_s=rise * rng.uniform(0.25, 1.3),
        west=west,
        east=east,
    )
