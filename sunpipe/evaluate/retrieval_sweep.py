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


@dataclass
class PixelQueries:
    """Queries that are compared pixel by pixel.

    Attributes
    ----------
    found : Nearest
        Filled by `sweep`.
    turned : list of float32 ndarray (Q, pixels)
        The queries in each way in which they may be turned; the nearest counts.
    """

    found: Nearest
    turned: list[Floats32]

    def see(self, tiles: Floats32, rows: slice) -> None:
        """Compare with a block of tiles (B, pixels)."""
        far = euclidean(self.turned[0], tiles)
        for other in self.turned[1:]:
            np.minimum(far, euclidean(other, tiles), out=far)
        self.found.see(far, rows)


def turn(
    images: Callable[[slice], Floats32], count: int, channels: Sequence[str],
    view: NormalizeSettings, ways: Sequence[tuple[str, ...]],
) -> list[Floats32]:  # fmt: skip
    """Pixel rows (count, pixels) of images in each of `ways` (names of symmetries to apply).

    `images` gives a block of fields (B, C, H, H) at a time: at 1024 x 1024 pixels a
    thousand of them would not fit into memory.

    Turning the query instead of the archive gives the same distances, because a
    symmetry moves pixels and changes signs, and with each way its inverse is there.
    """
    found: list[list[Floats32]] = [[] for _ in ways]
    for rows in blocks(count, AT_ONCE):
        fields = torch.from_numpy(images(rows))
        for way, parts in zip(ways, found, strict=True):
            x = fields
            for name in way:
                x = apply_symmetry(x, channels, name)
            parts.append(pixels(x, view))
    return [np.concatenate(parts) for parts in found]


def sweep(
    archive: Archive, reader: ShardReader, view: NormalizeSettings,
    sets: Sequence[PixelQueries], poll: Callable[[], None],
) -> None:  # fmt: skip
    """Show every tile of the archive to all of `sets`."""
    parts = list(blocks(len(archive), AT_ONCE))
    with Ticks(len(parts), "blocks compared by pixels") as ticks:
        for rows in parts:
            poll()
            tiles = pixels(torch.from_numpy(reader.images(archive.rows[rows])), view)
            for asked in sets:
                asked.see(tiles, rows)
            ticks.tick()
