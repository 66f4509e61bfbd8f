"""Integers of a RICE_1 tile-compressed image, decoded in bands of rows.

Bands stay in the processor's cache between decoding and what follows, so that
an image can be scaled or averaged without ever standing in memory as integers.
The streams themselves are read by `sunpipe.rice_kernels`.

References
----------
FITS Standard 4.0 (2018): sections 7.3.5 (descriptors), 10.1 and 10.4.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sunpipe.fitsfile import FitsError, Unit, Value, count

_DESCRIPTOR = re.compile(r"1?([PQ])B(?:\(\d+\))?$")
_BAND = 1 << 18  # pixels of a band: 1 MB of int32, which a second-level cache holds


@dataclass(frozen=True)
class RiceImage:
    """Where the streams of an image lie.

    Attributes
    ----------
    heap : uint8 ndarray
        Bytes of the file up to the end of the unit's heap.
    starts, stops : int64 ndarray (tiles down, tiles across)
        First byte of each tile and the one after its last; within `heap`.
    shape : (H, W)
    tile : (rows, columns)
    bits : int
        Of a stored pixel: 8 (unsigned), 16 or 32.
    block : int
        Pixels of a block, 16 or 32.
    name : str
        The file's, for messages.
    """

    heap: NDArray[np.uint8]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    shape: tuple[int, int]
    tile: tuple[int, int]
    bits: int
    block: int
    name: str


def tile_shape(
    header: Mapping[str, Value], shape: tuple[int, int], name: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of a tile, and (tiles down, tiles across) of the image.

    Raises
    ------
    FitsError
        ``corrupt``: impossible tiles, or another number of them than the table has rows.
    """
    tile = (count(header, "ZTILE2", name, 1), count(header, "ZTILE1", name, shape[1]))
    if not all(1 <= part <= size for part, size in zip(tile, shape, strict=True)):
        raise FitsError("corrupt", f"{name}: compression tiles of {list(tile[::-1])} pixels")
    grid = (math.ceil(shape[0] / tile[0]), math.ceil(shape[1] / tile[1]))
    if math.prod(grid) != header.get("NAXIS2"):
        raise FitsError(
            "corrupt", f"{name}: {header.get('NAXIS2')} compressed tiles, not {math.prod(grid)}"
        )
    return tile, grid


def _parameters(header: Mapping[str, Value]) -> dict[Value, Value]:
    """ZNAMEn: ZVALn, with the standard's defaults (table 37)."""
    names = {key[5:]: value for key, value in header.items() if key.startswith("ZNAME")}
    return {"BLOCKSIZE": 32, "BYTEPIX": 4} | {
        value: header.get(f"ZVAL{number}") for number, value in names.items()
    }


def rice_image(raw: bytes, unit: Unit, shape: tuple[int, int], name: str) -> RiceImage | None:
    """The streams of a unit, None where its form is not one that SDO's archive writes.

    Covered are integers of 8, 16 and 32 bits, stored as wide as they were, in
    blocks of 16 or 32 pixels, in tiles of any shape, described in one table
    column of bytes.

    Raises
    ------
    FitsError
        ``corrupt``: the table says what cannot be.
    """
    header = unit.header
    words = _parameters(header)
    form = _DESCRIPTOR.match(str(header.get("TFORM1")))
    bits, block = header.get("ZBITPIX"), words.pop("BLOCKSIZE")
    covered = (
        header.get("ZCMPTYPE") == "RICE_1"
        and header.get("TFIELDS") == 1
        and header.get("TTYPE1") == "COMPRESSED_DATA"
        and form is not None
        and bits in (8, 16, 32)
        and words.pop("BYTEPIX") == int(bits) // 8
        and block in (16, 32)
        and not words
    )
    if not covered:
        return None
    assert form is not None
    assert isinstance(bits, int)
    assert isinstance(block, int)
    tile, grid = tile_shape(header, shape, name)
    kind = np.dtype(">i4" if form.group(1) == "P" else ">i8")
    width, tiles = count(header, "NAXIS1", name), math.prod(grid)
    if header.get("BITPIX") != 8 or header.get("NAXIS") != 2 or width != 2 * kind.itemsize:
        raise FitsError("corrupt", f"{name}: {width} bytes for one descriptor of {kind.itemsize}")
    table = width * tiles
    end = unit.data + table + count(header, "PCOUNT", name)
    first = unit.data + count(header, "THEAP", name, table)
    lengths, offsets = np.frombuffer(raw, kind, 2 * tiles, unit.data).reshape(-1, 2).T
    starts = offsets.astype(np.int64)
    room = end - first - starts
    if (
        not unit.data + table <= first <= end <= len(raw)
        or (starts < 0).any()
        or (lengths <= 0).any()
        or (lengths > room).any()
    ):
        raise FitsError("corrupt", f"{name}: a compressed tile lies outside its table's heap")
    starts += first
    stops = starts + lengths
    heap = np.frombuffer(raw, np.uint8, end)
    return RiceImage(
        heap, starts.reshape(grid), stops.reshape(grid), shape, tile, bits, block, name
    )


def _decode(
    image: RiceImage, rows: slice, columns: slice, height: int, width: int, out: NDArray[np.int32]
) -> None:
    """Tiles of one size, in `out` (tiles, height * width)."""
    from sunpipe.rice_kernels import decode_tiles

    starts = np.ascontiguousarray(image.starts[rows, columns]).ravel()
    stops = np.ascontiguousarray(image.stops[rows, columns]).ravel()
    if not decode_tiles(image.heap, starts, stops, image.bits, image.block, out):
        first = rows.start * image.tile[0]
        last = min(rows.stop * image.tile[0], image.shape[0])
        raise FitsError(
            "corrupt",
            f"{image.name}: the pixels of rows {first} to {last - 1} cannot be decompressed",
        )


def _tile_rows(image: RiceImage, first: int, last: int, out: NDArray[np.int32]) -> None:
    """Rows of tiles `first` to `last` - 1, all of one height, in `out` (rows, W)."""
    rows, across = slice(first, last), image.starts.shape[1]
    height = out.shape[0] // (last - first)
    if across == 1:
        _decode(image, rows, slice(0, 1), height, image.shape[1], out.reshape(last - first, -1))
        return
    whole = image.shape[1] // image.tile[1]
    for columns, width in (
        (slice(0, whole), image.tile[1]),
        (slice(whole, across), image.shape[1] - whole * image.tile[1]),
    ):
        number = columns.stop - columns.start
        if not number:
            continue
        tiles = np.empty((last - first, number, height, width), np.int32)
        flat = tiles.reshape((last - first) * number, height * width)
        _decode(image, rows, columns, height, width, flat)
        left = columns.start * image.tile[1]
        part = out[:, left : left + number * width]
        part[...] = tiles.transpose(0, 2, 1, 3).reshape(len(out), number * width)


def bands(image: RiceImage, multiple: int = 1) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Decode an image from its first row to its last.

    Parameters
    ----------
    image : RiceImage
    multiple : int
        Every band but the last has a multiple of so many rows.

    Yields
    ------
    first : int
        Row of the image.
    band : int32 ndarray (rows, W)
        Stored integers; overwritten by the next band.

    Raises
    ------
    FitsError
        ``corrupt``: a stream is damaged.
    """
    (rows, columns), height = image.shape, image.tile[0]
    unit = math.lcm(height, multiple)
    step = min(unit * max(1, _BAND // (columns * unit)), rows)
    work = np.empty((step, columns), np.int32)
    for first in range(0, rows, step):
        band = work[: min(step, rows - first)]
        whole = len(band) // height
        begin = first // height
        if whole:
            _tile_rows(image, begin, begin + whole, band[: whole * height])
        if len(band) % height:  # the last row of tiles may be lower
            _tile_rows(image, begin + whole, begin + whole + 1, band[whole * height :])
        yield first, band
