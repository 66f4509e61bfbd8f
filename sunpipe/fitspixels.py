"""Pixels of a FITS unit: plain images and RICE tile-compressed integer images.

That is what SDO files need; other compressions are refused, because their
decoders are large and their input is foreign. See FITS Standard 4.0, section 10.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitsfile import BLOCK, CARD, STRUCTURE, FitsError, Unit, Value, count

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


def _rice(raw: bytes, unit: Unit, shape: tuple[int, int], name: str) -> NDArray[Any]:
    """Decode a RICE image from its structural cards alone."""
    from astropy.io import fits

    header = unit.header
    columns = [header.get(f"TTYPE{n + 1}") for n in range(count(header, "TFIELDS", name))]
    if header.get("ZCMPTYPE") != "RICE_1" or columns != ["COMPRESSED_DATA"]:
        raise FitsError("unsupported", f"{name}: compression {header.get('ZCMPTYPE')} with columns"
                        f" {columns}; sunpipe reads plain images and RICE_1 integers")  # fmt: skip
    if header.get("ZBITPIX") not in (8, 16, 32):
        raise FitsError("unsupported", f"{name}: RICE_1 with ZBITPIX = {header.get('ZBITPIX')}")
    tiles = [count(header, f"ZTILE{n}", name, 1 if n > 1 else shape[1]) for n in (1, 2)]
    if not all(1 <= tile <= size for tile, size in zip(tiles, shape[::-1], strict=True)):
        raise FitsError("corrupt", f"{name}: compression tiles of {tiles} pixels")
    rows = math.ceil(shape[1] / tiles[0]) * math.ceil(shape[0] / tiles[1])
    if rows != header.get("NAXIS2"):
        raise FitsError("corrupt", f"{name}: {header.get('NAXIS2')} compressed tiles, not {rows}")
    primary = [f"SIMPLE  = {'T':>20}", f"BITPIX  = {8:>20}", f"NAXIS   = {0:>20}", "END"]
    text = "".join(card.ljust(CARD) for card in primary).ljust(BLOCK)
    table = "".join(_cards(header))
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


def _number(header: Mapping[str, Value], key: str, default: float, name: str) -> float:
    value = header.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FitsError("corrupt", f"{name}: {key} = {value!r} is not a number")
    return float(value)


def pixels(raw: bytes, unit: Unit, shape: tuple[int, int], name: str) -> NDArray[np.float64]:
    """Physical pixel values of a unit: ``BZERO + BSCALE * stored``, BLANK is NaN.

    Returns
    -------
    ndarray of float64, shape (rows, columns)
    """
    header = unit.header
    if header.get("ZIMAGE") is True:
        stored = _rice(raw, unit, shape, name)
    else:
        bits = int(header["BITPIX"])  # type: ignore[arg-type]
        kind = np.dtype(f">{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}")
        size = shape[0] * shape[1]
        stored = np.frombuffer(raw, kind, size, unit.data).reshape(shape)
    values = stored.astype(np.float64)
    scale, zero = _number(header, "BSCALE", 1.0, name), _number(header, "BZERO", 0.0, name)
    if scale != 1.0 or zero != 0.0:
        values *= scale
        values += zero
    blank = header.get("ZBLANK", header.get("BLANK"))
    if isinstance(blank, int) and not isinstance(blank, bool) and stored.dtype.kind in "iu":
        values[stored == blank] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values
