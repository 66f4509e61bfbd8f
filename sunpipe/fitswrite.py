"""Writing one image as FITS: world coordinates, checksums, statistics, and what made it.

The bytes are a pure function of the arguments. Synthetic images are marked so that
no header can be taken for an observation.

References
----------
FITS Standard 4.0 (2018): sections 4 (headers), 10 (tiled images).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_path
from sunpipe.fitscards import card, unit_bytes
from sunpipe.fitsfile import CARD, STRUCTURE
from sunpipe.fitsmark import Synthetic, lines, marked

_OWN = frozenset(
    {"SIMPLE", "END", "EXTEND", "EXTNAME", "ZPCOUNT", "ZGCOUNT", "ZBLANK", "BSCALE", "BZERO",
     "BLANK", "BUNIT", "CHECKSUM", "DATASUM", "CONTINUE", "DATAVALS", "MISSVALS", "DATAMIN",
     "DATAMAX", "DATAMEDN", "DATAMEAN", "DATARMS"}
)  # fmt: skip


def _modified_julian(date: Any) -> float | None:
    """MJD of DATE-OBS in its own time scale; None when it is no ISO date."""
    try:
        since = datetime.fromisoformat(str(date).removesuffix("Z")) - datetime(1858, 11, 17)
    except (ValueError, TypeError):
        return None
    return since.total_seconds() / 86400.0


def statistics(values: NDArray[np.floating]) -> dict[str, Any]:
    """DATAVALS ... DATARMS of physical pixel values, as JSOC writes them.

    DATARMS is the sample standard deviation (n - 1), which one pixel does not have;
    without a valid pixel only the counts are there.
    """
    good = values[np.isfinite(values)].astype(np.float64)
    cards: dict[str, Any] = {"DATAVALS": int(good.size), "MISSVALS": int(values.size - good.size)}
    if good.size:
        cards |= {
            "DATAMIN": float(good.min()),
            "DATAMAX": float(good.max()),
            "DATAMEDN": float(np.median(good)),
            "DATAMEAN": float(good.mean()),
        }
    if good.size > 1:
        cards["DATARMS"] = float(good.std(ddof=1))
    return cards


def scaled(
    data: NDArray[Any], bscale: float, bzero: float, blank: int, bits: int
) -> NDArray[np.signedinteger]:
    """Integers n with ``bzero + bscale * n`` within bscale / 2 of `data`; NaN is `blank`.

    Raises
    ------
    DataError
        A value, infinity included, that does not fit.
    """
    kind = np.dtype(f"i{bits // 8}")
    counts = np.rint((np.asarray(data, np.float64) - bzero) / bscale)
    missing = np.isnan(counts)
    counts[missing] = blank
    limits = np.iinfo(kind)
    outside = (counts < limits.min) | (counts > limits.max) | (~missing & (counts == blank))
    if outside.any():
        worst = np.asarray(data)[outside].flat[0]
        raise DataError(f"{worst} does not fit {bits}-bit integers in steps of {bscale:g}")
    return counts.astype(kind)


def _rice(stored: NDArray[np.signedinteger]) -> tuple[str, bytes]:
    """Structural cards and body of a RICE_1 image, one row per tile."""
    from sunpipe.rice_encode import BLOCK, encode_rows

    rows, columns = stored.shape
    heap, ends = encode_rows(stored)
    starts = np.concatenate([[0], ends[:-1]])
    if len(heap) > np.iinfo(np.int32).max:
        raise DataError(
            f"{rows} x {columns} pixels compress to {len(heap)} bytes; 2 GB is the most"
        )
    table = np.stack([ends - starts, starts], axis=1).astype(">i4").tobytes()
    cards = {
        "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": 8, "NAXIS2": rows,
        "PCOUNT": len(heap), "GCOUNT": 1, "TFIELDS": 1, "TTYPE1": "COMPRESSED_DATA",
        "TFORM1": f"1PB({int((ends - starts).max())})", "ZIMAGE": True, "ZTENSION": "IMAGE",
        "ZBITPIX": 8 * stored.itemsize, "ZNAXIS": 2, "ZNAXIS1": columns, "ZNAXIS2": rows,
        "ZPCOUNT": 0, "ZGCOUNT": 1, "ZTILE1": columns, "ZTILE2": 1, "ZCMPTYPE": "RICE_1",
        "ZNAME1": "BLOCKSIZE", "ZVAL1": BLOCK, "ZNAME2": "BYTEPIX", "ZVAL2": stored.itemsize,
    }  # fmt: skip
    return "".join(card(key, value) for key, value in cards.items()), table + heap


def image_bytes(
    data: NDArray[Any],
    header: Mapping[str, Any],
    unit: str,
    *,
    compress: str | None = "RICE_1",
    bscale: float | None = None,
    bzero: float = 0.0,
    blank: int | None = None,
    bits: int = 32,
    synthetic: Synthetic | None = None,
) -> bytes:
    """`write_image` into memory."""
    data = np.asarray(data)
    if data.ndim != 2 or not data.size or data.dtype.kind not in "iuf":
        raise ValueError(f"an image is (H, W) of numbers, not {data.shape} of {data.dtype}")
    if compress not in (None, "RICE_1"):
        raise ValueError(f"compress is None or RICE_1, not {compress!r}")
    if bits not in (16, 32):
        raise ValueError(f"bits is 16 or 32, not {bits}")
    if bscale is not None and not (math.isfinite(bscale) and bscale > 0 and math.isfinite(bzero)):
        raise ValueError(f"bscale = {bscale}, bzero = {bzero} is no scale")
    whole = data.dtype.kind in "iu" or bscale is not None
    if compress and not whole:
        raise ValueError("RICE_1 is lossless for integers only: give bscale, or compress=None")
    cards = marked(header, synthetic) if synthetic else dict(header)
    day = _modified_julian(cards.get("DATE-OBS"))
    if day is not None:  # readers of world coordinates want both, and warn when one is missing
        cards.setdefault("MJD-OBS", day)
    own = {key for key in cards if key in _OWN or STRUCTURE.match(key)}
    text = "".join(card(key, each) for key, value in cards.items() if key not in own
                   for each in lines(value))  # fmt: skip
    if unit:
        text += card("BUNIT", unit)
    if whole:
        blank = -(2 ** (bits - 1)) if blank is None else blank
        stored: NDArray[Any] = scaled(data, bscale or 1.0, bzero, blank, bits)
        shown = stored.astype(np.float64)
        shown *= bscale or 1.0
        shown += bzero
        shown[stored == blank] = np.nan
        text += card("BSCALE", float(bscale or 1.0)) + card("BZERO", float(bzero))
        text += card("BLANK", blank)
    else:
        stored = data.astype(np.float64 if data.dtype.itemsize == 8 else np.float32)
        shown = stored
    text += "".join(card(key, value) for key, value in statistics(shown).items())
    simple = f"{'SIMPLE':8}= {'T':>20}".ljust(CARD)
    if compress:
        structure, body = _rice(stored)
        empty = simple + card("BITPIX", 8) + card("NAXIS", 0) + card("EXTEND", True)
        return unit_bytes(empty, b"") + unit_bytes(structure + text, body)
    kind = stored.dtype.itemsize * 8 * (1 if whole else -1)
    structure = simple + card("BITPIX", kind) + card("NAXIS", 2)
    structure += card("NAXIS1", stored.shape[1]) + card("NAXIS2", stored.shape[0])
    return unit_bytes(structure + text, stored.astype(stored.dtype.newbyteorder(">")).tobytes())


def write_image(
    path: Path, data: NDArray[Any], header: Mapping[str, Any], unit: str, **how: Any
) -> None:
    """Write one image atomically.

    Parameters
    ----------
    path : Path
    data : ndarray (H, W)
        Physical values; row 0 is the southernmost. Floats without `bscale` are stored
        bit for bit (float16 as float32), integers and scaled floats as integers.
    header : mapping
        Cards. A list makes a card repeat (HISTORY). Structure, scale, statistics and
        checksums are the writer's own; such cards given are not used.
    unit : str
        BUNIT; empty for codes.
    compress : {"RICE_1", None}
        Tiles of one row in the first extension, or a plain primary image.
    bscale, bzero, blank : float, float, int
        Stored integers are ``(value - bzero) / bscale`` rounded, NaN is `blank`
        (default: the smallest integer).
    bits : {32, 16}
        Of stored integers.
    synthetic : Synthetic, optional
        Marks the image as no observation; see `marked`.

    Raises
    ------
    DataError
        A card that FITS cannot hold, a value that does not fit the integers.
    ValueError
        Arguments that do not go together.
    """
    raw = image_bytes(data, header, unit, **how)
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)
