"""An archive of the scorecard without files: HARPs with several times and tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sunpipe.embed.store import EmbeddingInfo
from sunpipe.evaluate.retrieval_archive import Archive

HOURS = (0.0, 12.0, 30.0)


def archive(
    harps: int, tiles: int = 4, hours: tuple[float, ...] = HOURS, dim: int = 6, seed: int = 0,
    train: int | None = None, disk: bool = False, vectors: NDArray[np.float32] | None = None,
) -> Archive:  # fmt: skip
    """`tiles` tiles of each of `harps` HARPs at `hours`; the first `train` HARPs are trained on."""
    count = harps * len(hours) * tiles
    group = np.repeat(np.arange(harps), len(hours) * tiles)
    time = np.tile(np.repeat(np.array(hours), tiles), harps)
    if vectors is None:
        vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    info = EmbeddingInfo(
        encoder={}, dataset={}, splits=["train"], dim=vectors.shape[1], count=count,
        normalisation="none", files={}, metadata="", provenance={},
    )  # fmt: skip
    return Archive(
        info=info, vectors=vectors, places=np.arange(count), rows=np.arange(count), group=group,
        names=[str(number + 1) for number in range(harps)], hours=time,
        disk=np.full(count, disk), train=group < (harps if train is None else train),
        records=[f"hmi.sharp_cea_720s[{g + 1}][{h:g}h]" for g, h in zip(group, time, strict=True)],
        total=count,
    )  # fmt: skip
