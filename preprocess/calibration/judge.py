"""Whether a full-disk image can be used, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preprocess.calibration.disk import check_full_disk, geometry
from preprocess.calibration.times import seconds_apart
from preprocess.dataset.patch import number
from preprocess.quality import Chain, Policy, chain_of, decode, eclipsed, refusal
from sunpipe.fitsfile import FitsError

AIA_CHANNELS = (94, 131, 171, 193, 211, 304, 335, 1600, 1700, 4500)
AIA_LEVELS = (1.0, 1.5)
SATURATED_DN = 16383  # full scale of the 14-bit camera
LONGEST_S = 60.0  # AIA's exposures are 0.01 to 3 s, its longest calibration frames some 10 s
ANGSTROM = ("angstrom", "angstroms", "0.1 nm", "a")
# T_REC is the slot of a series, T_OBS the middle of the exposure: they lie within one slot.
AIA_SLOT_S = 60.0  # 12 and 24 s, and room
VISIBLE, VISIBLE_SLOT_S = 4500, 3600.0  # aia.lev1_vis_1h
HMI_SLOT_S: dict[Chain, float] = {"hmi_720s": 720.0, "hmi_45s": 45.0}


@dataclass(frozen=True)
class Limits:
    """What an image may lack.

    Attributes
    ----------
    max_nan_share : float
        Missing pixels on the disk, as a share of the disk.
    max_saturated_share : float
        Saturated AIA pixels, as a share of the image.
    min_exposure_s : float
        Exposure of AIA.
    """

    max_nan_share: float = 0.01
    max_saturated_share: float = 0.01
    min_exposure_s: float = 0.01


@dataclass(frozen=True)
class Census:
    """Counts of an image: shares of saturated and of missing pixels, and its range.

    Attributes
    ----------
    nan_share : float
        Of the pixels within the limb.
    saturated_share : float
        Of all pixels: at or above the camera's full scale.
    low, high : float
        Least and largest valid value; NaN when there is none.
    """

    nan_share: float
    saturated_share: float
    low: float
    high: float


def census(
    data: NDArray[np.floating], centre: tuple[float, float], radius: float, full: float = math.inf
) -> Census:
    """Count an image in one pass.

    Parameters
    ----------
    data : float ndarray (H, W)
        DN or gauss, NaN where invalid.
    centre : (x, y)
        Of the disk, 0-based pixels.
    radius : float
        Of the limb, pixels.
    full : float
        Full scale of the camera; by default nothing counts as saturated.
    """
    from preprocess.calibration import kernels

    image = np.ascontiguousarray(data, data.dtype if data.dtype == np.float32 else np.float64)
    low, high, inside, missing, saturated = kernels.count(image, *centre, radius, float(full))
    found = math.isfinite(low)
    return Census(
        missing / inside if inside else math.nan,
        saturated / data.size,
        float(low) if found else math.nan,
        float(high) if found else math.nan,
    )


def instrument(header: Mapping[str, Any]) -> Literal["AIA", "HMI"]:
    """AIA or HMI of SDO.

    Raises
    ------
    FitsError
        ``no_keywords``: no TELESCOP; ``wrong_instrument``.
    """
    telescope, camera = header.get("TELESCOP"), str(header.get("INSTRUME", ""))
    if telescope is None:
        raise FitsError("no_keywords", "the image has no TELESCOP keyword")
    if str(telescope).startswith("SDO"):
        if "AIA" in f"{telescope} {camera}":
            return "AIA"
        if "HMI" in f"{telescope} {camera}":
            return "HMI"
    raise FitsError("wrong_instrument", f"the image was taken by {telescope} {camera}".rstrip()
                    + ", not by SDO/HMI or SDO/AIA")  # fmt: skip


def channel(header: Mapping[str, Any]) -> int:
    """Wavelength of an AIA image, angstrom.

    Raises
    ------
    FitsError
        ``wrong_wavelength``.
    """
    unit = str(header.get("WAVEUNIT") or "angstrom").strip().lower()
    if unit not in ANGSTROM:
        raise FitsError("wrong_wavelength", f"WAVEUNIT = {header['WAVEUNIT']!r}, not angstrom")
    value = number(header, "WAVELNTH")
    if value not in AIA_CHANNELS:
        raise FitsError(
            "wrong_wavelength", f"WAVELNTH = {header.get('WAVELNTH')!r} is no channel of AIA"
        )
    return int(value)


def level(header: Mapping[str, Any]) -> float:
    """Processing level of an AIA image, 1.0 or 1.5.

    Raises
    ------
    FitsError
        ``wrong_level``.
    """
    value = number(header, "LVL_NUM")
    if value not in AIA_LEVELS:
        raise FitsError(
            "wrong_level", f"LVL_NUM = {header.get('LVL_NUM')!r}; sunpipe reads level 1 and 1.5"
        )
    return float(value)


def exposure(header: Mapping[str, Any], least: float) -> float:
    """Exposure of an AIA image, s.

    Raises
    ------
    FitsError
        ``exposure``: none, shorter than `least`, or longer than AIA exposes.
    """
    value = number(header, "EXPTIME")
    if value is None or value < least:
        raise FitsError(
            "exposure", f"EXPTIME = {header.get('EXPTIME')!r} s; at least {least:g} s are needed"
        )
    if value > LONGEST_S:
        raise FitsError(
            "exposure", f"EXPTIME = {value:g} s; AIA exposes for at most {LONGEST_S:g} s"
        )
    return value


def _observed(header: Mapping[str, Any], slot: float) -> None:
    """Refuse a T_OBS that is no time, or not within `slot` seconds of T_REC."""
    seen, record = header.get("T_OBS"), header.get("T_REC")
    if seen is None:
        return
    apart = seconds_apart(seen, seen if record is None else record)
    if apart is None:
        raise FitsError("time", f"T_OBS = {seen!r} or T_REC = {record!r} is no time")
    if apart > slot:
        raise FitsError("wrong_record", f"T_OBS = {seen} and T_REC = {record} are {apart:.0f} s"
                        f" apart, more than {slot:g} s: they are not of one record")  # fmt: skip


def _slot(header: Mapping[str, Any], chain: Chain) -> float:
    """The most seconds between T_OBS and T_REC."""
    if chain != "aia":
        return HMI_SLOT_S[chain]
    return VISIBLE_SLOT_S if channel(header) == VISIBLE else AIA_SLOT_S


def _quality(header: Mapping[str, Any], policy: Policy, chain: Chain) -> None:
    value = number(header, "QUALITY")
    if value is None:
        raise FitsError("quality", f"the image has no QUALITY ({header.get('QUALITY')!r})")
    if why := refusal(int(value), policy, chain):
        only = decode(int(value), chain) in (["ECLIPSE"], ["ECLIPSE", "POORQUALITY"])
        raise FitsError("eclipse" if only and eclipsed(int(value), chain) else "quality", why)
    if policy != "lenient" and str(header.get("ACS_ECLP", "NO")).strip().upper() == "YES":
        raise FitsError("eclipse", f"ACS_ECLP = YES is refused by policy {policy}")


def saturated_share(header: Mapping[str, Any], counted: Census) -> float:
    """Share of saturated pixels: as counted, or NSATPIX of TOTVALS where that says more."""
    stated, total = number(header, "NSATPIX"), number(header, "TOTVALS")
    if stated is None or total is None or total <= 0:
        return counted.saturated_share
    return max(counted.saturated_share, stated / total)


def judge(
    header: Mapping[str, Any],
    data: NDArray[np.floating],
    policy: Policy = "usual",
    *,
    series: str | None = None,
    wavelength: int | None = None,
    limits: Limits | None = None,
    name: str = "image",
) -> Census:
    """Refuse a full-disk image that cannot be used.

    Parameters
    ----------
    header : mapping
        Cards of the archive's file.
    data : float ndarray (H, W)
        Its pixels, uncalibrated: DN for AIA, NaN where invalid.
    policy : str
        For QUALITY; see `preprocess.quality.refusal`.
    series : str, optional
        JSOC series: it says which chain wrote QUALITY.
    wavelength : int, optional
        The channel that AIA must be of, angstrom.
    limits : Limits, optional
    name : str
        For messages.

    Returns
    -------
    Census
        What was counted.

    Raises
    ------
    FitsError
        ``no_keywords``, ``wrong_instrument``, ``wrong_level``,
        ``wrong_wavelength``, ``wrong_segment``, ``quality``, ``eclipse``,
        ``exposure``, ``time``, ``wrong_record``, ``geometry``, ``cutout``,
        ``all_nan``, ``blank``, ``negative``, ``missing_pixels``, ``saturated``.
    """
    limits = limits or Limits()
    who = instrument(header)
    if who == "AIA":
        level(header)
        found = channel(header)
        if wavelength is not None and found != wavelength:
            raise FitsError("wrong_wavelength", f"{name} is of {found} A, not {wavelength} A")
    kind = str(header.get("IMG_TYPE") or "LIGHT").strip().upper()
    if kind != "LIGHT":
        raise FitsError("wrong_segment", f"{name} has IMG_TYPE = {kind}, not LIGHT")
    chain = chain_of(header, series)
    _quality(header, policy, chain)
    _observed(header, _slot(header, chain))
    if who == "AIA":
        exposure(header, limits.min_exposure_s)
    where = geometry(header, (data.shape[0], data.shape[1]), name)
    check_full_disk(where, name)
    full = SATURATED_DN if who == "AIA" else math.inf
    counted = census(data, where.centre, where.radius_pixels, full)
    if math.isnan(counted.low) or counted.nan_share == 1:
        raise FitsError("all_nan", f"{name} has no valid pixel on the disk")
    if counted.low == counted.high:
        raise FitsError("blank", f"{name} is {counted.low:g} everywhere")
    if counted.high < 0:
        raise FitsError("negative", f"{name} is negative everywhere: {counted.high:g} is its"
                        " largest value")  # fmt: skip
    if counted.nan_share > limits.max_nan_share:
        raise FitsError("missing_pixels", f"{name}: {counted.nan_share:.2%} of the disk are"
                        f" missing; at most {limits.max_nan_share:.2%} may be")  # fmt: skip
    if who == "AIA" and (share := saturated_share(header, counted)) > limits.max_saturated_share:
        raise FitsError("saturated", f"{name}: {share:.2%} of the pixels are saturated"
                        f" ({SATURATED_DN} DN); at most {limits.max_saturated_share:.2%} may"
                        " be")  # fmt: skip
    return counted
