"""How physical units are stored: int16 counts of a step, or floats, with the rounding stated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitsfile import FitsError

# No photospheric field is stronger; full scale of AIA's camera in 0.01 s, of a worn channel.
LIMITS = {"Gauss": 10000.0, "DN/s": 16383 / 0.01 / 0.04}
FLOAT16_SCALE = 256.0  # holds 1.6e7, as short exposures of a worn channel give, to 2^-11
STEP = 0.2  # gauss; HMI's inversion stops at 5000 G, int16 steps of 0.2 G hold 6553 G


def check_limits(image: NDArray[np.floating], units: list[str]) -> None:
    """Refuse values that no instrument can have measured.

    Parameters
    ----------
    image : ndarray (C, H, W)
    units : list of str
        Of the channels.

    Raises
    ------
    FitsError
        ``overflow``.
    """
    for channel, unit in zip(image, units, strict=True):
        top = float(np.abs(channel).max(initial=0.0))
        if not top <= LIMITS[unit]:
            raise FitsError("overflow", f"a value of {top:g} is no {unit}")


@dataclass(frozen=True)
class Stored:
    """The type in which a dataset keeps physical units.

    Attributes
    ----------
    dtype : {"int16", "float16", "float32"}
    step : float
        Physical units per count of int16; unused for floats.
    """

    dtype: str
    step: float = STEP

    @property
    def scale(self) -> float:
        """Stored number times this is the value."""
        if self.dtype == "int16":
            return self.step
        return FLOAT16_SCALE if self.dtype == "float16" else 1.0

    @property
    def limit(self) -> float:
        """Largest magnitude that can be stored."""
        kind = np.dtype(self.dtype)
        return self.scale * float(np.iinfo(kind).max if kind.kind == "i" else np.finfo(kind).max)

    @property
    def errors(self) -> tuple[float, float]:
        """Largest absolute error near 0, and largest relative error, of rounding."""
        kind = np.dtype(self.dtype)
        if kind.kind == "i":
            return self.step / 2, 0.0
        kinds = np.finfo(kind)
        return self.scale * float(kinds.smallest_subnormal) / 2, float(kinds.eps) / 2

    def quantise(self, image: NDArray[np.floating]) -> NDArray[Any]:
        """Physical units to the stored type.

        Parameters
        ----------
        image : ndarray (C, H, W)
            Finite.

        Raises
        ------
        FitsError
            ``overflow`` when a value does not fit; nothing is ever clipped.
        """
        top = float(np.abs(image).max(initial=0.0))
        if not top <= self.limit:
            raise FitsError(
                "overflow",
                f"a value of {top:.1f} does not fit; {self.dtype} holds {self.limit:.1f}",
            )
        if self.dtype == "int16":
            return np.rint(image / self.step).astype(np.int16)
        return (image / self.scale).astype(self.dtype)


def pixel_digest(image: NDArray[Any], mask: NDArray[np.uint8]) -> str:
    """Digest of an image and its mask as stored, by which a row of the records knows them."""
    found = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    found.update(np.ascontiguousarray(mask).data)
    return found.hexdigest()


def restore(stored: NDArray[Any], scale: float) -> NDArray[np.float32]:
    """Inverse of `Stored.quantise`: stored numbers times `scale`, in float32."""
    return stored.astype(np.float32) * np.float32(scale)
