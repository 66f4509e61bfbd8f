"""Pixel distances: one pass over the images of the archive for all who ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_archive import Archive
from sunpipe.evaluate.retrieval_baselines import pixels
from sunpipe.evaluate.retrieval_nearest import Nearest, blocks, euclidean
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.channels import apply_symmetry
from sunpipe.shards.reader import ShardReader
from sunpipe.ticks import Ticks

Floats32 = NDArray[np.float32]
AT_ONCE = 128  # images in memory


Way = tuple[str, ...]


@dataclass
class PixelQueries:
    """Queries that are compared pixel by pixel.

    Attributes
    ----------
    found : Nearest
        Filled by `sweep`.
    rows : float32 ndarray (Q, pixels)
        The queries as they lie.
    ways : list of tuple of str
        Symmetries to apply in turn, for each way in which a tile may be turned; the
        nearest way counts.
    """

    found: Nearest
    rows: Floats32
    ways: Sequence[Way]


def pixel_rows(
    images: Callable[[slice], Floats32], count: int, view: NormalizeSettings
) -> Floats32:
    """Pixel rows (count, pixels) of images.

    `images` gives a block of fields (B, C, H, H) at a time: at 1024 x 1024 pixels a
    thousand of them would not fit into memory.
    """
    return np.concatenate([pixels(torch.from_numpy(images(rows)), view)
                           for rows in blocks(count, AT_ONCE)])  # fmt: skip


def turn(fields: torch.Tensor, channels: Sequence[str], way: Way) -> torch.Tensor:
    """Fields (B, C, H, H) after the symmetries of `way`, in turn."""
    for name in way:
        fields = apply_symmetry(fields, channels, name)
    return fields


def compare(
    fields: torch.Tensor, channels: Sequence[str], view: NormalizeSettings,
    sets: Sequence[PixelQueries], rows: slice,
) -> None:  # fmt: skip
    """Show a block of tiles (B, C, H, H) to all of `sets`, in each way they ask for.

    Turning the tile instead of the query gives the same distances, because a symmetry
    moves pixels and changes signs, and with each way its inverse is there. So one turned
    block is in memory, and not every query in every way.
    """
    far: list[Floats32 | None] = [None] * len(sets)
    for way in dict.fromkeys(way for asked in sets for way in asked.ways):
        tiles = pixels(turn(fields, channels, way), view)
        for place, asked in enumerate(sets):
            if way in asked.ways:
                new, old = euclidean(asked.rows, tiles), far[place]
                far[place] = new if old is None else np.minimum(old, new, out=old)
    for asked, nearest in zip(sets, far, strict=True):
        if nearest is not None:
            asked.found.see(nearest, rows)


def sweep(
    archive: Archive, reader: ShardReader, view: NormalizeSettings,
    sets: Sequence[PixelQueries], poll: Callable[[], None],
) -> None:  # fmt: skip
    """Show every tile of the archive to all of `sets`."""
    parts = list(blocks(len(archive), AT_ONCE))
    with Ticks(len(parts), "blocks compared by pixels") as ticks:
        for rows in parts:
            poll()
            fields = torch.from_numpy(reader.images(archive.rows[rows]))
            compare(fields, reader.info.channels, view, sets, rows)
            ticks.tick()
