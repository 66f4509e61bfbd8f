"""Cards of a calibrated image: its world coordinates and who it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from preprocess.calibration.disk import Geometry, target_scale

# What says which observation this is; it goes along as it stands.
IDENTITY = (
    "TELESCOP", "INSTRUME", "WAVELNTH", "WAVEUNIT", "CONTENT", "T_REC", "T_OBS", "DATE-OBS",
    "EXPTIME", "QUALITY", "CADENCE", "CODEVER0", "CAMERA", "FSN", "CAR_ROT", "CRLN_OBS", "CRLT_OBS",
    "HGLN_OBS", "HGLT_OBS", "DSUN_OBS", "RSUN_REF", "OBS_VR", "ORIGIN", "AECTYPE", "IMG_TYPE",
)  # fmt: skip


def result_cards(
    header: Mapping[str, Any],
    found: Geometry,
    resolution: int,
    rsun_share: float,
    unit: str,
    level: float | None,
) -> dict[str, Any]:
    """Header of a result of `resolution` pixels per side, north up, the Sun in the middle.

    Parameters
    ----------
    unit : str
        BUNIT.
    level : float, optional
        LVL_NUM.
    """
    scale = target_scale(found.radius, resolution, rsun_share)
    cards: dict[str, Any] = {
        key: header[key]
        for key in IDENTITY
        if header.get(key) is not None
        and not (isinstance(header[key], float) and not math.isfinite(header[key]))
    }
    for axis, kind in ((1, "HPLN-TAN"), (2, "HPLT-TAN")):
        cards |= {
            f"CTYPE{axis}": kind,
            f"CUNIT{axis}": "arcsec",
            f"CRPIX{axis}": (resolution + 1) / 2,
            f"CRVAL{axis}": 0.0,
            f"CDELT{axis}": scale,
        }
    cards |= {
        "CROTA2": 0.0,
        "RSUN_OBS": found.radius,
        "R_SUN": rsun_share * resolution / 2,
        "BUNIT": unit,
    }
    if level is not None:
        cards["LVL_NUM"] = level
    return cards
