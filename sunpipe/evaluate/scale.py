"""What a distance means: the same distance between real images, and to spoiled ones."""

from __future__ import annotations

import numpy as np
import torch

from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.reference import FEWEST, Reference, compare, read_block
from sunpipe.shards.reader import ShardReader

Row = dict[str, float]
KEY = 0x4A1F
BLUR = (0.25, 0.5, 0.25)  # sigma 0.7 pixels


def halves(reader: ShardReader, reference: Reference, count: int, batch: int) -> Row | None:
    """Distances of one random half of the real images from the other: the floor.

    The halves hold `count` images where there are twice as many, else half of
    all. Overlapping tiles and neighbouring times stand in both halves, so new
    regions would lie further away. None under 128 images.
    """
    size = min(count, len(reader) // 2)
    if size < FEWEST:
        return None
    order = np.random.default_rng([KEY, len(reader)]).permutation(len(reader))
    one, two = (
        read_block(reference.lens, reader, np.sort(reader.rows[part]), batch)
        for part in (order[:size], order[size : 2 * size])
    )
    return compare(Reference.from_block(reference.lens, one), two)


def other_split(reader: ShardReader, reference: Reference, count: int, batch: int) -> Row | None:
    """Distances of the images of another split (regions never trained on); None under 64."""
    from sunpipe.evaluate.lens import spread_rows

    rows = spread_rows(reader, count)
    if len(rows) < FEWEST:
        return None
    return compare(reference, read_block(reference.lens, reader, rows, batch))


def blur(fields: torch.Tensor) -> torch.Tensor:
    """Fields (B, C, H, W) weighted 1/4, 1/2, 1/4 along both axes; edges are reflected."""
    channels = fields.shape[1]
    line = torch.tensor(BLUR, dtype=fields.dtype, device=fields.device)
    weight = torch.outer(line, line).expand(channels, 1, 3, 3)
    padded = torch.nn.functional.pad(fields, (1, 1, 1, 1), mode="reflect")
    return torch.nn.functional.conv2d(padded, weight, groups=channels)


def blurred(reader: ShardReader, reference: Reference, count: int, batch: int) -> Row:
    """Distances of the real images themselves, each blurred by 0.7 pixels."""
    from sunpipe.evaluate.lens import spread_rows

    rows = spread_rows(reader, count)
    return compare(reference, FeatureBlock.concat(
        reference.features(blur(torch.from_numpy(reader.images(rows[start : start + batch]))))
        for start in range(0, len(rows), batch)
    ))  # fmt: skip
