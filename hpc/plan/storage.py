"""What an experiment takes on the disk, artefact by artefact."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.plan.subject import Subject
from sunpipe.settings import Config

# Seen in runs: a grid of images takes about a byte per pixel and channel, a tick a line of
# statistics and a dozen TensorBoard points.
GRID_IMAGES, GRID_SIDE, PIXEL_BYTES = 24, 512, 1.0
TICK_BYTES = 2048
METADATA_BYTES = 64  # of a row: record name, place, split, size
QUANTITIES = 24  # at most so many numbers of eight bytes are measured of a sample


@dataclass(frozen=True)
class Stored:
    """Bytes of one kind of artefact; `bytes` is None where it cannot be known yet."""

    what: str
    bytes: int | None
    how: str

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return vars(self)


def storage(cfg: Config, images: Subject, checkpoint_bytes: int) -> list[Stored]:
    """Bytes of each artefact of an experiment once it is complete.

    Parameters
    ----------
    checkpoint_bytes : int
        Of one checkpoint of G and D.
    """
    t = cfg.train
    kept = min(t.keep_checkpoints, max(round(t.kimg / t.checkpoint_kimg), 1)) + 1
    grids = t.kimg / t.image_kimg + 2
    side = min(images.resolution, GRID_SIDE)
    grid = GRID_IMAGES * side**2 * images.channels * PIXEL_BYTES
    sample = 4 * (t.model.z_dim + t.model.w_dim) + 8 * QUANTITIES
    rows, dim = images.images, cfg.ssl.dim
    vectors = None if rows is None else rows * (4 * dim + METADATA_BYTES)
    if images.stored_bytes is not None:
        shards = Stored("shards", images.stored_bytes, "on the disk")
    else:
        how = (f"{images.raw_bytes / 1e6:.3g} MB an image before compression; how many there will"
               " be is known after sunpipe shard")  # fmt: skip
        shards = Stored("shards", None, how)
    return [
        shards,
        Stored("checkpoints", kept * checkpoint_bytes,
               f"{kept} of {checkpoint_bytes / 1e6:.3g} MB, one of them being written"),
        Stored("image grids", round(grids * grid), f"{grids:.0f} grids"),
        Stored("statistics", round(t.kimg / t.tick_kimg * TICK_BYTES), "stats.jsonl, TensorBoard"),
        Stored("samples", cfg.sample.count * sample, f"{cfg.sample.count} of z, w, quantities"),
        Stored("embeddings", vectors, "of all images" if rows else "known after sunpipe shard"),
        Stored("index", None if vectors is None else 2 * vectors,
               "vectors and a coded copy" if rows else "known after sunpipe shard"),
    ]  # fmt: skip


def free_bytes(root: Path) -> int:
    """Free space of the file system that holds, or will hold, the data root; quotas are unseen."""
    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
