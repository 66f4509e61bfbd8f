"""One record: a pure function of the plan, the HARP and the step."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.archive import RecordName, relative_path
from preprocess.simulation import keywords as cards
from preprocess.simulation.ephemeris import format_time, observer, parse_time, slot
from preprocess.simulation.field import network, radial_field, texture, vector_field
from preprocess.simulation.observe import Noise, coordinates, observe, point_spread, sky_axes
from preprocess.simulation.region import Region, draw_region
from sunpipe.files import atomic_path, digest
from sunpipe.fitsmark import Synthetic
from sunpipe.fitswrite import image_bytes
from sunpipe.physics.geometry import pixel_size_cm

SERIES = "sim.sharp_cea_720s"
MODEL = 1  # raise it when the same plan gives other pixels
ROTATION_DEG_PER_S = 13.2 / 86400.0  # synodic, as seen from the Earth
VISIBLE_DEG = 130.0  # a HARP is followed at most from 65 degrees east to 65 west
SPREAD_DAYS = 2900.0  # first records fall within these days of the plan's start

# (segment, attribute, BUNIT, bscale, bits) as hmi.sharp_cea_720s has them.
FIELDS = (("Br", "br", "G", 0.01, 32), ("Bt", "bt", "G", 0.01, 32),
          ("Bp", "bp", "G", 0.01, 32), ("magnetogram", "los", "G", 0.1, 32),
          ("bitmap", "bitmap", "", None, 16),
          ("conf_disambig", "conf_disambig", "", None, 16))  # fmt: skip
ERRORS = (("Br_err", "br_err", "G", 0.001, 32), ("Bt_err", "bt_err", "G", 0.001, 32),
          ("Bp_err", "bp_err", "G", 0.001, 32))  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a simulated archive is made of.

    Attributes
    ----------
    seed : int
    steps : int
        Records of one HARP when it is complete.
    cadence_s : int
        Between them; a multiple of 720.
    start : str
        TAI; HARPs begin within eight years of it.
    shape : (int, int), optional
        Rows and columns of every patch; drawn like those of SHARPs when missing.
    noise : Noise
    errors : bool
        Whether the errors of the components are written too.
    """

    seed: int
    steps: int
    cadence_s: int
    start: str
    shape: tuple[int, int] | None
    noise: Noise
    errors: bool

    @property
    def identity(self) -> str:
        """Digest of everything that decides pixels; which segments are written is not in it."""
        settings = asdict(self) | {"model": MODEL}
        del settings["errors"]
        return digest(settings)

    @property
    def segments(self) -> tuple[tuple[str, str, str, float | None, int], ...]:
        """Segments that are written."""
        return FIELDS + ERRORS if self.errors else FIELDS

    @property
    def drift_deg(self) -> float:
        """How far a HARP moves west between its first and its last record."""
        return (self.steps - 1) * self.cadence_s * ROTATION_DEG_PER_S


@dataclass(frozen=True)
class Made:
    """One written segment."""

    segment: str
    path: str
    sha256: str
    bytes: int


@lru_cache(maxsize=64)
def harp(plan: Plan, harpnum: int) -> tuple[Region, datetime]:
    """The region of a HARP and the time of its first record."""
    rng = np.random.default_rng([plan.seed, harpnum, 0])
    first = slot(parse_time(plan.start) + timedelta(days=float(rng.uniform(0.0, SPREAD_DAYS))))
    return draw_region(rng, first, plan.drift_deg, plan.shape), first


def record_time(plan: Plan, harpnum: int, step: int) -> datetime:
    """T_REC of a record."""
    return harp(plan, harpnum)[1] + timedelta(seconds=step * plan.cadence_s)


def record_name(plan: Plan, harpnum: int, step: int) -> str:
    """Record-set string of a record."""
    return str(RecordName(SERIES, format_time(record_time(plan, harpnum, step)), harpnum))


def simulate(plan: Plan, harpnum: int, step: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Segments of a record (physical values by attribute of `Observation`) and its cards."""
    region, first = harp(plan, harpnum)
    when, last = (first + timedelta(seconds=n * plan.cadence_s) for n in (step, plan.steps - 1))
    seconds = float(step * plan.cadence_s)
    seen_from = observer(when)
    carrington = (observer(first).lon + region.meridian_deg) % 360.0
    header = cards.geometry_cards(seen_from) | cards.patch_cards(region, carrington)
    pixel_cm = pixel_size_cm(header)
    grain = texture((plan.seed, harpnum, 1), region.shape, seconds)
    bz, truth = radial_field(region, seconds, grain, pixel_cm)
    lon, lat = coordinates(region.shape, cards.STEP_DEG, header["CRVAL1"], header["CRVAL2"])
    axes = sky_axes(lon, lat, seen_from)
    if plan.noise.network_g:
        bz = bz + network((plan.seed, harpnum, 2), region.shape, plan.noise.network_g)
    blur = point_spread(axes) if plan.noise.psf else None
    field = vector_field(bz, truth.alpha, pixel_cm, blur)
    seen = observe(field, axes, plan.noise, np.random.default_rng([plan.seed, harpnum, 3, step]))
    mu = float(axes[0, 2, region.shape[0] // 2, region.shape[1] // 2])
    header = (
        cards.time_cards(when, first, last, plan.steps)
        | header
        | cards.fixed_cards(harpnum, SERIES)
        | cards.measured_cards(seen, pixel_cm**2, lon, lat, seen_from.lon)
        | cards.truth_cards(truth, plan.noise, mu, plan.seed, step)
    )
    return {name: getattr(seen, name) for name in seen.__dataclass_fields__}, header


def write_record(
    plan: Plan, harpnum: int, step: int, archive: Path, wanted: tuple[str, ...]
) -> list[Made]:
    """Write the `wanted` segments of a record into the archive."""
    images, header = simulate(plan, harpnum, step)
    name = record_name(plan, harpnum, step)
    mark = Synthetic(
        "SIMULATED", "SUBMERGED SOURCES", plan.identity,
        ("Submerged monopoles, linear force-free horizontal field.",
         "SIMFLUX Mx, SIMALPHA 1/Mm, SIMSEP Mm, SIMTILT degrees north of west:",
         "inputs, exact for the field without noise, quiet Sun and blur."),
    )  # fmt: skip
    made = []
    for segment, attribute, unit, bscale, bits in plan.segments:
        if segment in wanted:
            raw = image_bytes(images[attribute], header, unit, bscale=bscale, bits=bits,
                              synthetic=mark)  # fmt: skip
            relative = relative_path(name, segment)
            with atomic_path(archive / relative) as temporary:
                temporary.write_bytes(raw)
            made.append(Made(segment, relative, hashlib.sha256(raw).hexdigest(), len(raw)))
    return made
