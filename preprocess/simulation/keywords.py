"""Header of a simulated record: what HMI's pipeline would write, and the truth behind it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.simulation.ephemeris import JSOC_AU_M, RSUN_M, Observer, format_time, utc
from preprocess.simulation.field import Truth
from preprocess.simulation.observe import Noise, Observation
from preprocess.simulation.region import Region

STEP_DEG = 0.03  # CDELT of SHARPs in CEA coordinates
# Columns of simulated.parquet that come from cards of their own.
TRUTH_CARDS = {
    "SIMFLUX": "flux_mx", "SIMALPHA": "alpha_per_mm", "SIMSEP": "separation_mm",
    "SIMTILT": "tilt_deg", "SIMIMB": "imbalance", "SIMGROW": "growth", "SIMMU": "mu",
    "SIMSTEP": "step", "SIMSEED": "seed",
}  # fmt: skip


def geometry_cards(seen_from: Observer) -> dict[str, Any]:
    """Cards of the observer."""
    return {
        "DSUN_OBS": round(seen_from.distance_m, 2),
        "DSUN_REF": JSOC_AU_M,
        "RSUN_REF": RSUN_M,
        "RSUN_OBS": round(seen_from.radius_arcsec, 6),
        "CRLN_OBS": round(seen_from.lon, 6),
        "CRLT_OBS": round(seen_from.lat, 6),
        "CAR_ROT": seen_from.rotation,
    }


def patch_cards(region: Region, carrington_deg: float) -> dict[str, Any]:
    """World coordinates of the patch: CEA about its centre."""
    rows, columns = region.shape
    return {
        "CTYPE1": "CRLN-CEA", "CTYPE2": "CRLT-CEA", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRPIX1": 0.5 * (columns + 1), "CRPIX2": 0.5 * (rows + 1),
        "CRVAL1": round(carrington_deg, 6), "CRVAL2": round(region.lat_deg, 6),
        "CDELT1": STEP_DEG, "CDELT2": STEP_DEG, "CROTA2": 0.0,
        "WCSNAME": "Carrington Heliographic",
    }  # fmt: skip


def time_cards(when: datetime, first: datetime, last: datetime, records: int) -> dict[str, Any]:
    """Cards of the record's time and of its HARP's life."""
    return {
        "DATE-OBS": utc(when).isoformat(timespec="milliseconds"),
        "T_OBS": format_time(when),
        "T_REC": format_time(when),
        "TRECEPOC": "1993.01.01_00:00:00_TAI",
        "TRECSTEP": 720.0,
        "TRECUNIT": "secs",
        "CADENCE": 720.0,
        "T_FRST1": format_time(first),
        "T_LAST1": format_time(last),
        "N_PATCH1": records,
    }


def truth_cards(truth: Truth, noise: Noise, mu: float, seed: int, step: int) -> dict[str, Any]:
    """The inputs: Mx, 1/Mm, Mm, degrees north of west, gauss."""
    return {
        "SIMFLUX": truth.flux_mx, "SIMALPHA": truth.alpha, "SIMSEP": truth.separation_mm,
        "SIMTILT": truth.tilt_deg, "SIMIMB": truth.imbalance, "SIMGROW": truth.growth,
        "SIMMU": mu, "SIMSEED": seed, "SIMSTEP": step, "SIMLOSN": noise.los_g,
        "SIMTRNN": noise.transverse_g, "SIMNETW": noise.network_g, "SIMPSF": noise.psf,
    }  # fmt: skip


def measured_cards(
    seen: Observation,
    area_cm2: float,
    lon_deg: NDArray[np.float64],
    lat_deg: NDArray[np.float64],
    meridian_deg: float,
) -> dict[str, Any]:
    """USFLUX with its error, CMASK and the patch statistics, of the observed field.

    Formulas of Bobra et al. 2014, Sol. Phys. 289, 3549, tables 3 and A.5; longitudes are
    relative to the central meridian at `meridian_deg`, and centroids flux-weighted.
    """
    inside = seen.bitmap >= 30
    mask = inside & (seen.conf_disambig >= 70)
    cards: dict[str, Any] = {"CMASK": float(mask.sum()), "NPIX": int(inside.sum())}
    los = seen.los[inside].astype(np.float64)
    active = inside & (seen.bitmap & 2 > 0)
    cards["NACR"] = int(active.sum())
    if mask.any():
        cards["USFLUX"] = float(area_cm2 * np.abs(seen.br[mask]).sum(dtype=np.float64))
        cards["ERRVF"] = float(area_cm2 * math.sqrt((seen.br_err[mask].astype(float) ** 2).sum()))
    if los.size:
        cards |= {"MTOT": float(np.abs(los).sum()), "MNET": float(los.sum()),
                  "MPOS_TOT": float(los[los > 0].sum()), "MNEG_TOT": float(-los[los < 0].sum()),
                  "MMEAN": float(los.mean()), "MSTDEV": float(los.std())}  # fmt: skip
    for name, where in (("", active), ("PO", active & (seen.los > 0)),
                        ("NE", active & (seen.los < 0))):  # fmt: skip
        weight = np.abs(seen.los[where]).astype(np.float64)
        if weight.sum() > 0:
            away = (lon_deg[where] - meridian_deg + 180.0) % 360.0 - 180.0
            keys = ("LATFWT" + name, "LONFWT" + name) if name else ("LAT_FWT", "LON_FWT")
            cards[keys[0]] = float(weight @ lat_deg[where] / weight.sum())
            cards[keys[1]] = float(weight @ away / weight.sum())
    return cards


def fixed_cards(harpnum: int, series: str) -> dict[str, Any]:
    """Cards that every record of a HARP has."""
    return {
        "SERIES": series, "HARPNUM": harpnum, "QUALITY": 0, "QUAL_S": 0, "QUALLEV1": 0,
        "NOAA_AR": 0, "NOAA_NUM": 0, "NOAA_ARS": "MISSING", "WAVELNTH": 6173.0,
        "CONTENT": "SIMULATED ACTIVE REGION", "OBS_VR": 0.0, "OBS_VW": 0.0, "OBS_VN": 0.0,
    }  # fmt: skip
