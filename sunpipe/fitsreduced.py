"""Images read at a fraction of their size: 4096 x 4096 pixels of a file to 1024 x 1024 means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.downsample import block_mean
from sunpipe.fits import joined, last_image, parse_segment, read_bytes
from sunpipe.fitsfile import FitsError, Value
from sunpipe.fitspixels import reduced_pixels
from sunpipe.fitsstats import states_its_pixels


@dataclass(frozen=True)
class Reduced:
    """One image, averaged over blocks of pixels.

    Attributes
    ----------
    data : float32 ndarray (H / factor, W / factor)
        Means of the valid pixels of each block, in the units of BUNIT; NaN
        where less than half of them are valid.
    count : int32 ndarray (H / factor, W / factor)
        Valid pixels of each block.
    header : dict
        As in `Segment`: it describes the native pixels (CDELT1, CRPIX1, NAXIS1 ...).
    factor : int
    verified : bool
        As in `Segment`.
    """

    data: NDArray[np.float32]
    count: NDArray[np.int32]
    header: dict[str, Value]
    factor: int
    verified: bool


def read_reduced(path: Path, factor: int, keywords: Mapping[str, Any] | None = None) -> Reduced:
    """Read the last image of a FITS file as means of blocks of `factor` x `factor` pixels.

    A RICE image is averaged while it is decoded and never stands in memory at
    full size. Checksums are verified as by `read_segment`.

    Parameters
    ----------
    path : Path
    factor : int
        Divides both sides of the image.
    keywords : mapping, optional
        Keywords for what the header lacks.

    Raises
    ------
    FitsError
        With the reasons of `read_segment`, or ``geometry`` when `factor` does
        not divide the image.
    FileNotFoundError
        When `path` does not exist.
    """
    path = Path(path)
    return parse_reduced(read_bytes(path), path.name, factor, keywords)


def parse_reduced(
    raw: bytes, name: str, factor: int, keywords: Mapping[str, Any] | None = None
) -> Reduced:
    """`read_reduced` for bytes already in memory; `name` is used in messages."""
    unit, shape, verified = last_image(raw, name)
    if not verified and states_its_pixels(unit.header, shape):  # all pixels are to be compared
        full = parse_segment(raw, name)
        try:
            means, count = block_mean(full.data, factor)
        except ValueError as error:
            raise FitsError("geometry", f"{name}: {error}") from None
        return Reduced(
            means.astype(np.float32), count, joined(unit, keywords, name), factor, verified
        )
    data, count = reduced_pixels(raw, unit, shape, name, factor)
    return Reduced(data, count, joined(unit, keywords, name), factor, verified)
