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
    fields: NDArray[np.float32], channels: Sequence[str], view: NormalizeSettings,
    ways: Sequence[tuple[str, ...]],
) -> list[Floats32]:  # fmt: skip
    """Pixel rows of fields (Q, C, H, H) in each of `ways` (names of symmetries to apply).

    Turning the query instead of the archive gives the same distances, because a
    symmetry moves pixels and changes signs, and with each way its inverse is there.
    """
    found = []
    for way in ways:
        parts = []
        for rows in blocks(len(fields)):
            x = torch.from_numpy(fields[rows])
            for name in way:
                x = apply_symmetry(x, channels, name)
            parts.append(pixels(x, view))
        found.append(np.concatenate(parts))
    return found


def sweep(
    archive: Archive, reader: ShardReader, view: NormalizeSettings,
    sets: Sequence[PixelQueries], poll: Callable[[], None],
) -> None:  # fmt: skip
    """Show every tile of the archive to all of `sets`."""
    parts = list(blocks(len(archive)))
    with Ticks(len(parts), "blocks compared by pixels") as ticks:
        for rows in parts:
            poll()
            tiles = pixels(torch.from_numpy(reader.images(archive.rows[rows])), view)
            for asked in sets:
                asked.see(tiles, rows)
            ticks.tick()
