"""Small pictures of observations, from the shards that an index was made of.

The tiles of a record are laid side by side again, so that one sees the region and, as a
frame, the tile that answered. Magnetic fields are shown in gauss from -limit to +limit on a
diverging map, other images from 0 on by their square root.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sunpipe.index.datasets import Datasets, source_of
from sunpipe.plots import FIELD_CMAP

LARGEST = 240  # pixels of the longer side
LEVELS = 255  # colours; one more stands for "no data"
NO_DATA = (150, 155, 163)
ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
FIELD_UNITS = ("G", "Gauss", "gauss")
POSITIVE_CMAP = "inferno"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Patch:
    """What the index holds of a record.

    Attributes
    ----------
    image : float32 ndarray (H, W)
        In physical units, NaN where no tile is; row 0 is the southernmost.
    box : tuple of float
        Left, top, width and height of the tile, shares of the picture.
    """

    image: Floats
    box: tuple[float, float, float, float]


def shown_channel(channels: Sequence[str]) -> int:
    """Br, or the first channel where there is none."""
    return list(channels).index("Br") if "Br" in channels else 0


def blocks(image: Floats, largest: int = LARGEST) -> Floats:
    """Mean over whole blocks of pixels, NaN where a block has none, at most `largest` a side."""
    factor = -(-max(image.shape) // largest)
    if factor <= 1:
        return image
    height, width = (-(-side // factor) * factor for side in image.shape)
    padded = np.full((height, width), np.nan, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    parts = padded.reshape(height // factor, factor, width // factor, factor)
    known = np.isfinite(parts)
    count = known.sum(axis=(1, 3))
    total = np.where(known, parts, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)


def patch(datasets: Datasets, record: str, tile: Sequence[int] | None = None) -> Patch:
    """The tiles of a record laid side by side, and the place of one of them.

    Parameters
    ----------
    tile : (y, x), optional
        First native row and column of the tile; any by default.
    """
    table = datasets.index.table
    rows = np.flatnonzero(pc.equal(table["record"], record).to_numpy())
    reader = datasets.reader(int(source_of(datasets.index, rows[:1])[0]))
    mine = table.take(rows)
    reduce, side = reader.info.reduce, reader.info.resolution
    corners = np.stack([np.asarray(mine[name]) for name in ("tile_y", "tile_x")], 1) // reduce
    first = corners.min(axis=0)
    height, width = corners.max(axis=0) - first + side
    image = np.full((height, width), np.nan, np.float32)
    channel = shown_channel(reader.info.channels)
    for row, (y, x) in zip(mine["row"].to_pylist(), corners - first, strict=True):
        field = np.where(reader.masks([row])[0], reader.images([row])[0, channel], np.nan)
        part = image[y : y + side, x : x + side]
        part[...] = np.where(np.isfinite(field), field, part)
    y, x = corners[0] - first if tile is None else np.asarray(tile) // reduce - first
    box = (x / width, 1 - (y + side) / height, side / width, side / height)
    return Patch(blocks(image), (float(box[0]), float(box[1]), float(box[2]), float(box[3])))


def is_field(units: Sequence[str], channels: Sequence[str]) -> bool:
    """Whether the shown channel is a magnetic field."""
    return units[shown_channel(channels)] in FIELD_UNITS


def colour_limit(images: Iterable[Floats]) -> float:
    """A round number that 99 % of the magnitudes stay below."""
    every = [np.abs(image[np.isfinite(image)]) for image in images]
    values = np.concatenate(every) if every else np.zeros(0)
    top = float(np.percentile(values, 99)) if len(values) else 0.0
    if top <= 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(top))
    return float(next(nice for nice in ROUND if nice * step >= top) * step)


def palette(field: bool) -> NDArray[np.uint8]:
    """RGB of `LEVELS` colours and of missing pixels, (LEVELS + 1, 3)."""
    import matplotlib

    name = FIELD_CMAP if field else POSITIVE_CMAP
    table = matplotlib.colormaps[name](np.linspace(0, 1, LEVELS))[:, :3]
    return np.vstack([np.rint(table * 255), NO_DATA]).astype(np.uint8)


def data_uri(image: Floats, limit: float, field: bool) -> str:
    """A palette PNG, north up, for an ``src`` attribute."""
    from PIL import Image

    with np.errstate(invalid="ignore"):
        share = np.clip(image / limit, -1 if field else 0, 1)
        share = (share + 1) / 2 if field else np.sqrt(share)
    known = np.isfinite(share)
    levels = np.where(known, np.rint(np.where(known, share, 0) * (LEVELS - 1)), LEVELS)
    picture = Image.fromarray(np.ascontiguousarray(levels[::-1]).astype(np.uint8))
    picture.putpalette(palette(field).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def colour_bar(limit: float, field: bool) -> dict[str, Any]:
    """CSS gradient and end labels of the map."""
    colours = palette(field)[:LEVELS]
    stops = ",".join("#" + bytes(colours[row]).hex() for row in range(0, LEVELS, 254 // 12))
    low = -limit if field else 0.0
    return {"gradient": f"linear-gradient(to right,{stops})", "low": low, "high": limit}
