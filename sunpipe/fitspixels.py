"""Pixels of a FITS unit: plain images and RICE tile-compressed integer images.

That is what SDO files need; other compressions are refused, because their
decoders are large and their input is foreign. RICE images in the forms that
the archive writes are decoded by `sunpipe.rice`, which checks every step; rarer
forms (blocks of other sizes, integers stored wider than they were) by astropy.
See FITS Standard 4.0, section 10.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.downsample import block_mean, check_factor
from sunpipe.fitsfile import BLOCK, CARD, STRUCTURE, FitsError, Unit, Value, count
from sunpipe.rice import RiceImage, bands, rice_image, tile_shape

MAX_PIXELS = 4096 * 4096  # the sensors of HMI and AIA; more is a dimension bomb


def image_shape(header: Mapping[str, Value], name: str) -> tuple[int, int] | None:
    """(rows, columns) of a unit's image, None when it holds none; refuses bombs."""
    prefix = "Z" if header.get("ZIMAGE") is True else ""
    kind = header.get("XTENSION", "IMAGE")
    if (kind != "IMAGE" and not prefix) or not header.get(f"{prefix}NAXIS"):
        return None
    if header[f"{prefix}NAXIS"] != 2:
        raise FitsError("no_image", f"{name}: the image has {header[f'{prefix}NAXIS']} axes, not 2")
    columns, rows = (count(header, f"{prefix}NAXIS{axis}", name) for axis in (1, 2))
    if rows * columns > MAX_PIXELS:
        raise FitsError("too_large", f"{name}: {rows} x {columns} pixels; at most {MAX_PIXELS}")
    return (rows, columns) if rows * columns else None


def _cards(header: Mapping[str, Value]) -> Iterator[str]:
    for key, value in header.items():
        if STRUCTURE.match(key):
            if isinstance(value, bool):
                text = f"{'T' if value else 'F':>20}"
            elif isinstance(value, int):
                text = f"{value:>20}"
            else:
                text = f"'{value!s:8}'"
            yield f"{key:8}= {text}".ljust(CARD)
    yield "END".ljust(CARD)


def _check_codec(unit: Unit, name: str) -> None:
    """Refuse all compressed images but integers in RICE_1 tiles."""
    header = unit.header
    columns = [header.get(f"TTYPE{n + 1}") for n in range(count(header, "TFIELDS", name))]
    if header.get("ZCMPTYPE") != "RICE_1" or columns != ["COMPRESSED_DATA"]:
        raise FitsError("unsupported", f"{name}: compression {header.get('ZCMPTYPE')} with columns"
                        f" {columns}; sunpipe reads plain images and RICE_1 integers")  # fmt: skip
    if header.get("ZBITPIX") not in (8, 16, 32):
        raise FitsError("unsupported", f"{name}: RICE_1 with ZBITPIX = {header.get('ZBITPIX')}")


def _astropy_rice(raw: bytes, unit: Unit, shape: tuple[int, int], name: str) -> NDArray[Any]:
    """Decode a RICE image of a form that `sunpipe.rice` leaves, from its structural cards alone."""
    from astropy.io import fits

    tile_shape(unit.header, shape, name)
    primary = [f"SIMPLE  = {'T':>20}", f"BITPIX  = {8:>20}", f"NAXIS   = {0:>20}", "END"]
    text = "".join(card.ljust(CARD) for card in primary).ljust(BLOCK)
    table = "".join(_cards(unit.header))
    text += table.ljust(math.ceil(len(table) / BLOCK) * BLOCK)
    body = io.BytesIO(text.encode("ascii") + raw[unit.data : unit.end])
    try:
        with warnings.catch_warnings(), fits.open(body, memmap=False) as hdus:
            warnings.simplefilter("error")
            pixels = np.asarray(hdus[1].data)
    except Exception as error:  # astropy raises many kinds for damaged tiles
        raise FitsError("corrupt", f"{name}: the pixels cannot be decompressed ({error})") from None
    if pixels.shape != shape:
        raise FitsError("corrupt", f"{name}: decompressed to {pixels.shape}, header says {shape}")
    return pixels


def _stored(raw: bytes, unit: Unit, shape: tuple[int, int], name: str) -> RiceImage | NDArray[Any]:
    """The stored numbers of a unit: RICE streams still to be decoded, or an array."""
    header = unit.header
    if header.get("ZIMAGE") is True:
        _check_codec(unit, name)
        return rice_image(raw, unit, shape, name) or _astropy_rice(raw, unit, shape, name)
    bits = int(header["BITPIX"])  # type: ignore[arg-type]
    kind = np.dtype(f">{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}")
    return np.frombuffer(raw, kind, shape[0] * shape[1], unit.data).reshape(shape)


def _number(header: Mapping[str, Value], key: str, default: float, name: str) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FitsError("corrupt", f"{name}: {key} = {value!r} is not a number")
    return float(value)


def _scaling(
    header: Mapping[str, Value], integer: bool, name: str
) -> tuple[float, float, int | None]:
    """(BSCALE, BZERO, BLANK) of an image; BLANK is for 32-bit integers and narrower."""
    scale, zero = _number(header, "BSCALE", 1.0, name), _number(header, "BZERO", 0.0, name)
    if integer and abs(scale) * 2.0**31 + abs(zero) > np.finfo(np.float32).max:
        raise FitsError("corrupt", f"{name}: BSCALE = {scale} and BZERO = {zero} are out of range")
    blank = header.get("ZBLANK", header.get("BLANK"))
    if not integer or isinstance(blank, bool) or not isinstance(blank, int):
        return scale, zero, None
    return scale, zero, blank


def _within(blank: int | None) -> tuple[bool, int]:
    """Whether any int32 can be blank, and which."""
    possible = blank is not None and -(2**31) <= blank < 2**31
    return possible, blank if possible and blank is not None else 0


def pixels(
    raw: bytes, unit: Unit, shape: tuple[int, int], name: str, dtype: type = np.float64
) -> NDArray[np.floating]:
    """Physical pixel values of a unit: ``BZERO + BSCALE * stored``, BLANK is NaN.

    Parameters
    ----------
    dtype : type
        `numpy.float64` or `numpy.float32`; the latter is the former rounded.

    Returns
    -------
    ndarray of `dtype`, shape (rows, columns)
    """
    stored = _stored(raw, unit, shape, name)
    integer = isinstance(stored, RiceImage) or stored.dtype.kind in "iu"
    scale, zero, blank = _scaling(unit.header, integer, name)
    if isinstance(stored, RiceImage):
        from sunpipe.downsample_kernels import scaled

        masked, hole = _within(blank)
        image: NDArray[np.floating] = np.empty(shape, dtype)
        for first, band in bands(stored):
            scaled(band, scale, zero, masked, hole, image[first : first + len(band)])
        return image
    values = stored.astype(np.float64)
    if scale != 1.0 or zero != 0.0:
        values *= scale
        values += zero
    if blank is not None:
        values[stored == blank] = np.nan
    with np.errstate(over="ignore"):  # what float32 cannot hold is no observation
        values = values.astype(dtype, copy=False)
    values[~np.isfinite(values)] = np.nan
    return values


def reduced_pixels(
    raw: bytes, unit: Unit, shape: tuple[int, int], name: str, factor: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Means of blocks of `factor` x `factor` physical pixels over the valid ones.

    RICE images are averaged band by band while they are decoded; the sums are
    of the stored integers, hence exact.

    Returns
    -------
    means : float32 ndarray (H / factor, W / factor)
        NaN where less than half of a block is valid.
    counts : int32 ndarray (H / factor, W / factor)
        Valid pixels of each block.
    """
    try:
        small = check_factor(shape, factor)
    except ValueError as error:
        raise FitsError("geometry", f"{name}: {error}") from None
    stored = _stored(raw, unit, shape, name)
    if not isinstance(stored, RiceImage):
        wide, counts = block_mean(pixels(raw, unit, shape, name), factor)
        return wide.astype(np.float32), counts
    from sunpipe.downsample_kernels import mean_of_integers

    scale, zero, blank = _scaling(unit.header, True, name)
    masked, hole = _within(blank)
    means, counts = np.empty(small, np.float32), np.empty(small, np.int32)
    total, bad = np.empty(shape[1], np.int64), np.empty(shape[1], np.int32)
    for first, band in bands(stored, factor):
        rows = slice(first // factor, (first + len(band)) // factor)
        mean_of_integers(
            band, factor, scale, zero, masked, hole, means[rows], counts[rows], total, bad
        )
    return means, counts
