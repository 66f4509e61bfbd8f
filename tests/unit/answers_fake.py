"""An index of six records whose order, regions and keywords are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sunpipe.embed.store import part_name, part_note, publish, write_part
from sunpipe.index.build import build
from sunpipe.index.store import Index, load_index

DIM = 8
MADE_FROM = {"encoder": "e" * 64, "dataset": "d" * 64, "splits": ["train"]}
SERIES = "hmi.sharp_cea_720s"
DAYS = ["2011.02.15_02:00", "2011.02.15_02:12", "2013.05.01_00:00", "2015.10.30_00:00",
        "2015.10.30_00:12", "2019.01.01_00:00"]  # fmt: skip
TIMES = [f"{day}:00_TAI" for day in DAYS]
HARPS = [377, 377, 700, 6060, 6060, None]
NOAA = ["11158", "11158", "11734,11736", "12441", "12441", "MISSING"]
TILES = [6, 6, 3, 4, 4, 1]


def name(number: int) -> str:
    """Record-set string of record `number`."""
    harp = HARPS[number]
    return f"{SERIES}[{harp}][{TIMES[number]}]" if harp else f"hmi.M_720s[{TIMES[number]}]"


def table() -> pa.Table:
    """Six records of four HARPs (the last a whole disk), 24 tiles."""
    rows: list[dict[str, Any]] = []
    for number, tiles in enumerate(TILES):
        for tile in range(tiles):
            rows.append({
                "row": len(rows), "shard": 0, "position": len(rows), "record": name(number),
                "harpnum": HARPS[number], "t_rec": TIMES[number], "split": "train",
                "simulated": number == 2, "tile_y": 16 * tile, "tile_x": 0, "pixel_cm": 1e8,
                "flux_mx": 1e21 * (1 + tile % 3), "mu": [0.94, 0.94, 0.3, 0.8, 0.8, 1.0][number],
                "noaa_ars": NOAA[number], "USFLUX": 1e22 * (number + 1),
                "TOTUSJH": None if number == 2 else 1000.0 * number,
            })  # fmt: skip
    return pa.Table.from_pylist(rows)


def make_index(folder: Path, dataset: dict[str, Any] | None = None) -> Index:
    """The index in ``<folder>/index/fake``; `dataset` adds to what it says of its shards."""
    random = np.random.default_rng(4)
    centre = random.normal(size=(len(TILES), DIM))
    vectors = np.repeat(centre, TILES, axis=0) + 0.05 * random.normal(size=(sum(TILES), DIM))
    rows = table()
    write_part(folder / "e", 0, vectors.astype(np.float32), MADE_FROM)
    place = pa.array(range(len(rows)), pa.int64())
    rows = rows.add_column(0, "embedding", pa.array([part_name(0)] * len(rows)))
    publish(
        folder / "e", rows.add_column(1, "vector", place), splits=["train"], dim=DIM,
        encoder={"digest": "e" * 64, "run": "00000-fake-ssl", "orbit": True},
        dataset={"name": "fake", "id": "d" * 64, "pixel_cm": 1e8, "settings": {}} | (dataset or {}),
        files={part_name(0): part_note(folder / "e", 0, MADE_FROM)},
    )  # fmt: skip
    build(folder / "e", folder / "index/fake")
    return load_index(folder / "index/fake")
