"""Whether a header is that of a SHARP in cylindrical equal-area coordinates.

A patch is cut, measured and placed on the disk by these cards, so that a wrong
one gives wrong numbers in silence. What HMI's pipeline writes is accepted
(``CRLN-CEA`` and ``CRLT-CEA`` in degrees, north up, square pixels), what it
cannot have written is refused. A missing card is left to whoever needs it.

References
----------
Calabretta and Greisen 2002, A&A 395, 1077, section 5.2.2 (CEA); Bobra et al. 2014,
Sol. Phys. 289, 3549, section 3 (SHARP); Thompson 2006, A&A 449, 791 (solar coordinates).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sunpipe.fitsfile import FitsError, Value

CTYPES = ("CRLN-CEA", "CRLT-CEA")
DEGREES = ("deg", "degree", "degrees")  # SHARPs spell it "degree"; missing means deg
# HMI's own step is 0.03 degrees and its best resolution 0.03 too; 1 degree is a map of the Sun.
STEP_RANGE = (0.005, 1.0)
RSUN_RANGE = (900.0, 1000.0)  # arcsec; the Earth's orbit gives 944 to 976
# Real headers agree to 2e-7; the two solar radii in use, 695.7 and 696 Mm, differ by 4e-4.
RADIUS_AGREEMENT = 1e-3
TILT = 7.5  # degrees; the Sun's equator is inclined by 7.25 to the Earth's orbit
# What the segments of one record have in common.
COMMON = (
    "CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CDELT1",
    "CDELT2", "CROTA2", "CRLN_OBS", "CRLT_OBS", "DSUN_OBS", "RSUN_OBS", "RSUN_REF", "T_OBS",
    "QUALITY",
)  # fmt: skip


def finite(header: Mapping[str, Value], key: str) -> float | None:
    """A finite number of a header, or None."""
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def limb_angle(header: Mapping[str, Value]) -> float | None:
    """``asin(RSUN_REF / DSUN_OBS)``, the Sun's angular radius in arcsec; None without the cards."""
    metres, distance = finite(header, "RSUN_REF"), finite(header, "DSUN_OBS")
    if metres is None or distance is None or not 0 < metres < distance:
        return None
    return math.degrees(math.asin(metres / distance)) * 3600.0


def check_radius(header: Mapping[str, Value], name: str) -> None:
    """Refuse an angular radius of the Sun that SDO does not see, or that fits no distance.

    Raises
    ------
    FitsError
        ``geometry``.
    """
    stated, found = finite(header, "RSUN_OBS"), limb_angle(header)
    if finite(header, "DSUN_OBS") is not None and finite(header, "RSUN_REF") is not None:
        if found is None:
            raise FitsError("geometry", f"{name}: DSUN_OBS = {header['DSUN_OBS']} m is not outside"
                            f" the Sun, whose RSUN_REF is {header['RSUN_REF']} m")  # fmt: skip
        if stated is not None and not abs(stated / found - 1) <= RADIUS_AGREEMENT:
            raise FitsError("geometry", f"{name}: RSUN_OBS = {stated:g} arcsec, but DSUN_OBS and"
                            f" RSUN_REF give {found:g}")  # fmt: skip
    for radius in (stated, found):
        if radius is not None and not RSUN_RANGE[0] <= radius <= RSUN_RANGE[1]:
            raise FitsError("geometry", f"{name}: a solar radius of {radius:g} arcsec is not one"
                            " seen from SDO")  # fmt: skip


def _check_projection(header: Mapping[str, Value], name: str) -> None:
    for axis, known in enumerate(CTYPES, 1):
        kind = str(header.get(f"CTYPE{axis}", "")).strip()
        if kind != known:
            raise FitsError(
                "wrong_projection",
                f"{name} has CTYPE{axis} = {kind!r}, not {known}; patches are read in cylindrical"
                " equal-area coordinates, as in hmi.sharp_cea_720s",
            )
        unit = header.get(f"CUNIT{axis}")
        if unit is not None and str(unit).strip().lower() not in DEGREES:
            raise FitsError("geometry", f"{name}: CUNIT{axis} = {unit!r}, not degrees")
    if finite(header, "PV2_1") not in (None, 1.0):
        raise FitsError("geometry", f"{name}: PV2_1 = {header['PV2_1']}; SHARPs are equal-area on"
                        " the sphere, PV2_1 = 1")  # fmt: skip


def _check_axes(header: Mapping[str, Value], name: str) -> None:
    """Square pixels, columns to the west and rows to the north."""
    steps = [finite(header, f"CDELT{axis}") for axis in (1, 2)]
    for axis, step in enumerate(steps, 1):
        if header.get(f"CDELT{axis}") is None:
            continue
        if step is None or not STEP_RANGE[0] <= step <= STEP_RANGE[1]:
            raise FitsError("geometry", f"{name}: CDELT{axis} = {header.get(f'CDELT{axis}')!r}, not"
                            f" {STEP_RANGE[0]:g} to {STEP_RANGE[1]:g} degrees")  # fmt: skip
    if None not in steps and steps[0] != steps[1]:
        raise FitsError("geometry", f"{name}: pixels of {steps[0]:g} x {steps[1]:g} degrees are not"
                        " square")  # fmt: skip
    side = 0.0 if steps[0] is None else steps[0]
    straight = {"CROTA1": 0.0, "CROTA2": 0.0, "PC1_1": 1.0, "PC1_2": 0.0, "PC2_1": 0.0,
                "PC2_2": 1.0, "CD1_1": side, "CD1_2": 0.0, "CD2_1": 0.0,
                "CD2_2": side}  # fmt: skip
    for key, value in straight.items():
        if header.get(key) is not None and finite(header, key) != value:
            raise FitsError("geometry", f"{name}: {key} = {header[key]!r}; the rows of a SHARP run"
                            f" along the equator, where it is {value:g}")  # fmt: skip


def centre_cosine(header: Mapping[str, Value]) -> float | None:
    """Cosine of the angle at the Sun's centre between the patch centre and the observer.

    ``sin B0 sin lat + cos B0 cos lat cos(lon - L0)`` with the centre at (CRVAL1,
    CRVAL2) and the sub-observer point at (CRLN_OBS, CRLT_OBS), all in degrees
    (Thompson 2006, eq. 11). None when a card is missing or no number.
    """
    cards = [finite(header, key) for key in ("CRVAL1", "CRVAL2", "CRLN_OBS", "CRLT_OBS")]
    if None in cards:
        return None
    lon, lat, lon0, lat0 = (math.radians(card) for card in cards if card is not None)
    return math.sin(lat0) * math.sin(lat) + math.cos(lat0) * math.cos(lat) * math.cos(lon - lon0)


def _check_place(header: Mapping[str, Value], shape: tuple[int, int], name: str) -> None:
    """A patch of the Sun that the observer can see at least a corner of.

    The centre itself may stand behind the limb: a HARP's rectangle is one for its
    whole life, and of a wide one the western part comes into sight days before.
    """
    for key, low, high in (("CRVAL1", -360, 720), ("CRVAL2", -90, 90), ("CRLN_OBS", -360, 720),
                           ("CRLT_OBS", -TILT, TILT)):  # fmt: skip
        value = finite(header, key)
        if value is not None and not low <= value <= high:
            raise FitsError("geometry", f"{name}: {key} = {value:g} is not within {low:g} to"
                            f" {high:g} degrees")  # fmt: skip
    cosine, step = centre_cosine(header), finite(header, "CDELT1")
    if cosine is None or step is None:
        return
    up, across = (min(size * step / 2, 180.0) for size in shape)
    reach = across + math.degrees(math.asin(min(1.0, math.radians(up))))
    angle = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    if angle > 90 + reach:
        raise FitsError("geometry", f"{name}: the patch stands {angle:.0f} degrees from the centre"
                        f" of the disk and reaches {reach:.0f}: all of it is behind the"
                        " limb")  # fmt: skip


def check_cea(header: Mapping[str, Value], shape: tuple[int, int], name: str) -> None:
    """Refuse a header that no SHARP in cylindrical equal-area coordinates has.

    Parameters
    ----------
    header : mapping
    shape : (rows, columns)
        Of the image.
    name : str
        The file's, for messages.

    Raises
    ------
    FitsError
        ``wrong_projection``: CTYPE; ``geometry``: units, steps, rotation, a place that
        cannot be seen, a radius of the Sun that is not one seen from SDO.
    """
    _check_projection(header, name)
    _check_axes(header, name)
    _check_place(header, shape, name)
    check_radius(header, name)


def check_common(
    first: Mapping[str, Value], other: Mapping[str, Value], names: tuple[str, str]
) -> None:
    """Refuse two segments whose headers contradict each other about place or time.

    Parameters
    ----------
    first, other : mapping
        Cards that only one of them has are no contradiction.
    names : (str, str)
        Of their files.

    Raises
    ------
    FitsError
        ``different_records``.
    """
    for key in COMMON:
        one, two = first.get(key), other.get(key)
        if one is None or two is None or one == two or (one != one and two != two):
            continue
        raise FitsError(
            "different_records",
            f"{names[1]} has {key} = {two!r}, {names[0]} {one!r}: they are not of one record",
        )
