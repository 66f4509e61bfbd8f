"""Where the Sun is in a full-disk image: from the cards of a header, and for the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.dataset.patch import number
from sunpipe.fitscea import check_radius
from sunpipe.fitsfile import FitsError

ARCSEC = {"arcsec": 1.0, "deg": 3600.0}
ROUNDNESS = 1e-3  # the largest relative difference of the two scales
AXES = (("HPLN-TAN", "SOLAR-X", "SOLAR_X"), ("HPLT-TAN", "SOLAR-Y", "SOLAR_Y"))


@dataclass(frozen=True)
class Geometry:
    """The Sun in an image.

    Attributes
    ----------
    shape : (rows, columns)
    centre : (x, y)
        Pixel of the disk's centre, 0-based.
    to_sky : float64 ndarray (2, 2)
        Arcsec towards solar west and north for a step of one column and one row.
    radius : float
        Of the limb, arcsec.
    radius_card : str
        The card that told the radius.
    """

    shape: tuple[int, int]
    centre: tuple[float, float]
    to_sky: NDArray[np.float64]
    radius: float
    radius_card: str

    @property
    def scale(self) -> float:
        """Side of a pixel, arcsec."""
        return math.sqrt(abs(float(np.linalg.det(self.to_sky))))

    @property
    def radius_pixels(self) -> float:
        """Radius of the limb in pixels."""
        return self.radius / self.scale

    @property
    def rotation(self) -> float:
        """CROTA2 of the image, degrees."""
        return math.degrees(math.atan2(self.to_sky[1, 0], self.to_sky[0, 0]))


def _card(header: Mapping[str, Any], key: str, name: str) -> float:
    value = number(header, key)
    if value is None:
        raise FitsError("geometry", f"{name}: card {key} is {header.get(key)!r}, not a number")
    return value


def _matrix(header: Mapping[str, Any], scale: tuple[float, float], name: str) -> NDArray[Any]:
    """PCi_j, from the cards or from CROTA2 (Thompson 2006, A&A 449, 791, section 3.2)."""
    if any(f"PC{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        unit = {(1, 1): 1.0, (2, 2): 1.0}
        return np.array(
            [[_card(header, f"PC{i}_{j}", name) if f"PC{i}_{j}" in header else unit.get((i, j), 0.0)
              for j in (1, 2)] for i in (1, 2)]
        )  # fmt: skip
    angle = math.radians(_card(header, "CROTA2", name))
    ratio = scale[1] / scale[0]
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -ratio * sin], [sin / ratio, cos]])


def _radius(header: Mapping[str, Any], name: str) -> tuple[float, str]:
    """Angle of the limb in arcsec: RSUN_OBS, or asin(RSUN_REF / DSUN_OBS); both must agree."""
    check_radius(header, name)
    radius, card = number(header, "RSUN_OBS"), "RSUN_OBS"
    if radius is None:
        distance, metres = number(header, "DSUN_OBS"), number(header, "RSUN_REF")
        if distance is None or metres is None or not 0 < metres < distance:
            raise FitsError(
                "geometry", f"{name}: neither RSUN_OBS nor DSUN_OBS and RSUN_REF tell the radius"
            )
        radius, card = math.degrees(math.asin(metres / distance)) * 3600, "DSUN_OBS"
    return radius, card


def geometry(header: Mapping[str, Any], shape: tuple[int, int], name: str = "image") -> Geometry:
    """Read the cards CTYPE, CUNIT, CRPIX, CRVAL, CDELT, CROTA2 or PC, RSUN_OBS.

    Raises
    ------
    FitsError
        ``geometry``: a card is missing, no number, or impossible.
    """
    steps = []
    for axis, known in zip((1, 2), AXES, strict=True):
        kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
        if kind not in known:
            raise FitsError("geometry", f"{name}: CTYPE{axis} = {kind!r}, not {known[0]}")
        unit = str(header.get(f"CUNIT{axis}", "arcsec")).strip().lower()
        if unit not in ARCSEC:
            raise FitsError("geometry", f"{name}: CUNIT{axis} = {unit!r}, neither arcsec nor deg")
        step = _card(header, f"CDELT{axis}", name) * ARCSEC[unit]
        if not step > 0:
            raise FitsError("geometry", f"{name}: CDELT{axis} = {step:g} is not positive")
        steps.append((step, (number(header, f"CRVAL{axis}") or 0.0) * ARCSEC[unit]))
    (sx, west), (sy, north) = steps
    if abs(sx / sy - 1) > ROUNDNESS:
        raise FitsError("geometry", f"{name}: pixels of {sx:g} x {sy:g} arcsec are not square")
    to_sky = np.diag((sx, sy)) @ _matrix(header, (sx, sy), name)
    if abs(np.linalg.det(to_sky) / (sx * sy) - 1) > 0.01:
        raise FitsError("geometry", f"{name}: the PC matrix is not a rotation")
    # CRVAL is at most some arcmin: the tangent plane is flat to 0.01 arcsec there.
    shift = np.linalg.solve(to_sky, (-west, -north))
    centre = tuple(_card(header, f"CRPIX{axis}", name) - 1 + shift[axis - 1] for axis in (1, 2))
    radius, card = _radius(header, name)
    return Geometry(shape, (float(centre[0]), float(centre[1])), to_sky, radius, card)


def check_full_disk(found: Geometry, name: str) -> None:
    """Refuse an image that does not hold the whole disk.

    Raises
    ------
    FitsError
        ``cutout``.
    """
    (rows, columns), (x, y), r = found.shape, found.centre, found.radius_pixels
    if x - r < -0.5 or y - r < -0.5 or x + r > columns - 0.5 or y + r > rows - 0.5:
        raise FitsError(
            "cutout",
            f"{name} is a cutout: the limb reaches columns {x - r:.0f} to {x + r:.0f} and rows"
            f" {y - r:.0f} to {y + r:.0f}, the image has {columns} x {rows} pixels",
        )


def target_scale(radius: float, resolution: int, rsun_share: float) -> float:
    """Arcsec per pixel that put a limb of `radius` arcsec at `rsun_share` of half the side."""
    return radius / (rsun_share * resolution / 2)


def target_map(
    found: Geometry, resolution: int, rsun_share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Affine map from pixels of the result to pixels of the image, both (x, y) and 0-based.

    Returns
    -------
    matrix : float64 ndarray (2, 2)
    offset : float64 ndarray (2,)
        The image's pixel of the result's pixel (0, 0).
    """
    scale = target_scale(found.radius, resolution, rsun_share)
    matrix = np.asarray(np.linalg.inv(found.to_sky) * scale, np.float64)
    middle = (resolution - 1) / 2
    return matrix, np.array(found.centre) - matrix @ np.array((middle, middle))


def disk_mask(resolution: int, rsun_share: float, radii: float = 1.0) -> NDArray[np.bool_]:
    """Pixels of the result whose centres lie within so many limb radii."""
    offset = np.arange(resolution, dtype=np.float64) - (resolution - 1) / 2
    square = np.square(offset)
    mask: NDArray[np.bool_] = (
        square[:, None] + square[None, :] <= (radii * rsun_share * resolution / 2) ** 2
    )
    return mask
