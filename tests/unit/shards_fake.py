"""A small dataset on disk, made by the writer of shards itself, with known pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocess.dataset.hdf5 import write_shard
from sunpipe.files import sha256
from sunpipe.shards.schema import DatasetInfo

CHANNELS = ["Br", "Bt", "Bp"]


def pixels(
    count: int, side: int, dtype: str = "int16", seed: int = 0
) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
    """Images (count, 3, side, side) with smooth parts, noise and holes, and their masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = np.sin(7 * x * rng.random((count, 3, 1, 1)) + 5 * y)
    images = 900 * waves + 40 * rng.standard_normal((count, 3, side, side))
    masks = (rng.random((count, side, side)) > 0.1).astype(np.uint8)
    return (images * masks[:, None]).astype(dtype), masks


def write_dataset(
    folder: Path, count: int = 40, side: int = 32, per_shard: int = 16, dtype: str = "int16",
    storage: str = "chunked",
) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:  # fmt: skip
    """A dataset of `count` images; every fifth row is of the test split."""
    images, masks = pixels(count, side, dtype)
    folder.mkdir(parents=True)
    about = {"channels": CHANNELS, "units": ["Gauss"] * 3, "scale": 0.5, "max_error": 0.25}
    for number, start in enumerate(range(0, count, per_shard)):
        part = slice(start, start + per_shard)
        pairs = zip(images[part], masks[part], strict=True)
        write_shard(folder / f"shard-{number:05d}.h5", pairs, len(images[part]), side, dtype,
                    about, storage)  # fmt: skip
    rows = np.arange(count)
    table = pa.table({
        "row": rows, "shard": rows // per_shard, "position": rows % per_shard,
        "split": ["test" if row % 5 == 4 else "train" for row in rows],
        "pixel_cm": np.full(count, 7e7),
    })  # fmt: skip
    pq.write_table(table, folder / "records.parquet")
    DatasetInfo(
        name=folder.name, product="sharp_vector", **about, resolution=side, tile=side, stride=0,
        reduce=1, dtype=dtype, storage=storage, max_relative_error=0.0,
        shards={path.name: sha256(path) for path in sorted(folder.glob("*.h5"))},
        files={}, counts={}, settings={}, versions={},
    ).write(folder)  # fmt: skip
    return images, masks
