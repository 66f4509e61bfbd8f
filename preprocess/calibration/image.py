"""A calibrated full-disk image, and the choices it was made with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# The limb of a Sun of 976 arcsec at 0.6 arcsec per pixel of a 4096 x 4096 image, as a share of
# half its side (Galvez et al. 2019, ApJS 242, 7: the SDO machine-learning data set).
RSUN_SHARE = 976.0 / (0.6 * 2048)
MAX_RESOLUTION = 8192


@dataclass(frozen=True)
class DiskSettings:
    """How full-disk images are made.

    Attributes
    ----------
    resolution : int
        Rows and columns of the result.
    rsun_share : float
        Radius of the limb as a share of half the side. One number for all images:
        the Sun fills the same pixels in January and in July.
    degradation : bool
        Correct AIA for the loss of sensitivity since launch.
    correction_table : Path, optional
        A table of AIA's response as SolarSoft and aiapy read it; by default the
        ones that come with sunpipe.
    pointing_table : Path, optional
        A saved table of AIA's 3-hourly master pointing; without one, the header's
        own pointing holds.
    register : str
        ``affine``: one interpolation from the archive's pixels to the result.
        ``aiapy``: level 1 goes through `aiapy.calibrate.register` first.
    min_exposure_s : float
        A shorter exposure is refused: what it is divided by is mostly error.
    occult_limb : float, optional
        AIA pixels farther out than so many limb radii become NaN.

    Raises
    ------
    ValueError
        When a number is out of its range.
    """

    resolution: int = 1024
    rsun_share: float = RSUN_SHARE
    degradation: bool = True
    correction_table: Path | None = None
    pointing_table: Path | None = None
    register: Literal["affine", "aiapy"] = "affine"
    min_exposure_s: float = 0.01
    occult_limb: float | None = None

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= MAX_RESOLUTION:
            raise ValueError(f"resolution = {self.resolution} is not in 16 .. {MAX_RESOLUTION}")
        if not 0.05 <= self.rsun_share <= 1:
            raise ValueError(f"rsun_share = {self.rsun_share} is not in 0.05 .. 1")
        if self.register not in ("affine", "aiapy"):
            raise ValueError(f"register = {self.register!r} is neither affine nor aiapy")
        if not (math.isfinite(self.min_exposure_s) and self.min_exposure_s > 0):
            raise ValueError(f"min_exposure_s = {self.min_exposure_s} is not positive")
        if self.occult_limb is not None and not self.occult_limb >= 1:
            raise ValueError(f"occult_limb = {self.occult_limb} is below 1: it would cut the disk")


@dataclass(frozen=True)
class DiskImage:
    """One full-disk image in physical units.

    Attributes
    ----------
    data : float32 ndarray (R, R)
        Gauss or DN/s, solar north up, NaN where there is no valid value.
    disk : bool ndarray (R, R)
        True within the limb.
    header : dict
        World coordinates and identity of the result.
    notes : dict
        What was done: pointing, exposure, degradation and the table it came from,
        saturated share.
    """

    data: NDArray[np.float32]
    disk: NDArray[np.bool_]
    header: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)
