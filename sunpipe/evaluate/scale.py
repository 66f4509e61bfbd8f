"""What a distance means: the same distance between real images, and to spoiled ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.reference import FEWEST, Reference, compare, read_block
from sunpipe.shards.reader import ShardReader

Row = dict[str, float]
Column = dict[str, Any]
KEY = 0x4A1F
BLUR = (0.25, 0.5, 0.25)  # sigma 0.7 pixels


def two_halves(
    reader: ShardReader, reference: Reference, count: int, batch: int
) -> tuple[Reference, FeatureBlock] | None:
    """Two random halves of the real images, the first as a reference; None under 128 images.

    They hold `count` images each where there are twice as many, else half of all.
    """
    size = min(count, len(reader) // 2)
    if size < FEWEST:
        return None
    order = np.random.default_rng([KEY, len(reader)]).permutation(len(reader))
    one, two = (
        read_block(reference.lens, reader, np.sort(reader.rows[part]), batch)
        for part in (order[:size], order[size : 2 * size])
    )
    return Reference.from_block(reference.lens, one), two


def halves(reader: ShardReader, reference: Reference, count: int, batch: int) -> Row | None:
    """Distances of one random half of the real images from the other: the floor.

    See `two_halves`. Overlapping tiles and neighbouring times stand in both, so
    new regions would lie further away.
    """
    found = two_halves(reader, reference, count, batch)
    return None if found is None else compare(*found)


def beside(
    reader: ShardReader, other: ShardReader, reference: Reference, made: Sequence[FeatureBlock],
    count: int, batch: int,
) -> dict[str, Column | None]:  # fmt: skip
    """What the distances of generated images mean: columns of real images, by name.

    A distance from fewer images is larger, so each column that holds fewer than
    `count` says what generated images get at its own N, against the same real
    ones.

    Parameters
    ----------
    reader, other : ShardReader
        Training images, and those of the test split.
    made : sequence of FeatureBlock
        Generated images of each seed.
    count : int
        N of `reference` and of each of `made`.

    Returns
    -------
    dict
        ``real_halves`` (None under 128 images), ``held_out`` (None under 64) and
        ``blurred``: each a dict of ``images``, their N, and ``metrics``; the first two
        with ``generated``, the mean over seeds of generated images at that N.
    """

    def column(real: Reference, images: int, row: Row) -> Column:
        rows = [compare(real, block.take(slice(images))) for block in made]
        means = {name: statistics.fmean(each[name] for each in rows) for name in row}
        return {"images": images, "metrics": row, "generated": means}

    found: dict[str, Column | None] = {"real_halves": None, "held_out": None}
    pair = two_halves(reader, reference, count, batch)
    if pair is not None:
        found["real_halves"] = column(pair[0], len(pair[1]), compare(*pair))
    apart = other_split(other, reference, count, batch)
    if apart is not None:
        found["held_out"] = column(reference, min(count, len(other)), apart)
    spoilt = blurred(reader, reference, count, batch)
    return found | {"blurred": {"images": count, "metrics": spoilt}}


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
