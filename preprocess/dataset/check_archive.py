"""A dataset against the archive it was made of: images and keywords made again and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocess.dataset.inputs import list_inputs
from preprocess.dataset.product import make_product
from preprocess.manifest import read_manifest
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.stored import Stored

Report = Callable[[str], None]
OF_THE_DATASET = {"row", "shard", "position"}


def _differences(row: dict[str, Any], again: dict[str, Any]) -> list[str]:
    return [key for key, value in again.items()
            if key not in OF_THE_DATASET and row.get(key) != value]  # fmt: skip


def check_archive(
    folder: Path,
    archive: Path,
    records: pa.Table,
    settings: ShardSettings,
    samples: int,
    report: Report,
) -> None:
    """Make evenly chosen images again from the files and compare them, bit for bit."""
    product, stored = make_product(settings), Stored(settings.dtype, settings.step)
    inputs = {item.record: item for item in list_inputs(read_manifest(archive), settings)}
    count = records.num_rows
    chosen = np.unique(np.linspace(0, count - 1, min(samples, count)).astype(int))
    reader = ShardReader(folder)
    for number in chosen.tolist():
        row = records.slice(number, 1).to_pylist()[0]
        what = f"row {number} ({row['record']})"
        if row["record"] not in inputs:
            report(f"{what}: is not in the archive any more")
            continue
        try:
            opened = product.open(archive, inputs[row["record"]])
            again, image, mask = opened.image((row["tile_y"], row["tile_x"]))
        except FitsError as error:
            report(f"{what}: cannot be made again: {error}")
            continue
        if differ := _differences(row, again):
            report(f"{what}: {', '.join(differ)} are not what the files say")
        value = stored.quantise(image).astype(np.float32) * np.float32(stored.scale)
        if not np.array_equal(reader.images([number])[0], value) or not np.array_equal(
            reader.masks([number])[0], mask
        ):
            report(f"{what}: its pixels are not what the files give")
    reader.close()
