"""Magnetogram tiles as small palette PNGs inside the page: sharp, tiny, one colour scale."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.plots import FIELD_CMAP

COLOURS = 255  # odd, so that 0 G has a colour of its own; the last palette entry is "no data"
NO_DATA = (150, 155, 163)
LARGEST = 128  # pixels of a tile; larger fields are averaged over whole blocks
STOPS = 13  # of the colour bar
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)


def colour_limit(fields: Iterable[NDArray[Any]]) -> float:
    """A round number of gauss that 99 % of the magnitudes of several fields stay below."""
    values = np.concatenate([np.abs(np.asarray(field, np.float64)).ravel() for field in fields])
    values = values[np.isfinite(values)]
    top = float(np.percentile(values, 99)) if len(values) else 0.0
    if top <= 0:
        return 1.0
    step = 10 ** np.floor(np.log10(top))
    return float(next(round_ for round_ in ROUND if round_ * step >= top) * step)


@cache
def palette() -> bytes:
    """RGB of the diverging map of `sunpipe.plots`, then of missing pixels."""
    import matplotlib

    table = matplotlib.colormaps[FIELD_CMAP](np.linspace(0, 1, COLOURS))
    rgb = np.rint(table[:, :3] * 255).astype(np.uint8)
    return rgb.tobytes() + bytes(NO_DATA)


def gradient() -> str:
    """The same map as a CSS gradient, for the colour bar."""
    colours = np.frombuffer(palette()[: 3 * COLOURS], np.uint8).reshape(-1, 3)
    rows = np.linspace(0, COLOURS - 1, STOPS).round().astype(int)
    stops = ",".join("#" + bytes(colours[row]).hex() for row in rows)
    return f"linear-gradient(to right,{stops})"


def indices(field: NDArray[Any], limit: float) -> NDArray[np.uint8]:
    """Palette entries of a field (H, W): -limit to 0, +limit to the last colour, NaN to no data."""
    with np.errstate(invalid="ignore"):
        place = np.rint((np.clip(field, -limit, limit) / limit + 1) / 2 * (COLOURS - 1))
    return np.where(np.isfinite(field), np.nan_to_num(place), COLOURS).astype(np.uint8)


def reduce(field: NDArray[Any], factor: int) -> NDArray[Any]:
    """Mean over blocks of `factor` x `factor` pixels; a ragged far edge is cut."""
    if factor <= 1:
        return field
    height, width = (side // factor * factor for side in field.shape)
    blocks = field[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(1, 3))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(field: NDArray[Any], limit: float, largest: int = LARGEST) -> bytes:
    """A palette PNG of a field (H, W) in gauss, row 0 at the bottom (north up).

    Parameters
    ----------
    limit : float
        The colours run from -limit to +limit gauss.
    largest : int
        Most pixels of the longer side.
    """
    pixels = indices(reduce(field, -(-max(field.shape) // largest)), limit)[::-1]
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bit, palette
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"".join((
        b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), _chunk(b"PLTE", palette()),
        _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b""),
    ))  # fmt: skip


def data_uri(content: bytes) -> str:
    """A PNG for an ``src`` attribute."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def tile(
    field: NDArray[Any], limit: float, alt: str, largest: int = LARGEST, **labels: Any
) -> dict[str, Any]:
    """One picture with its text, as the templates show it."""
    return {"src": data_uri(png(field, limit, largest)), "alt": alt, **labels}
