"""Embedding folders without a network: known vectors, records with several tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sunpipe.embed.store import EmbeddingInfo, part_name, part_note, publish, write_part

DIM = 8
MADE_FROM = {"encoder": "e" * 64, "dataset": "d" * 64, "splits": ["train"]}


def record(number: int) -> str:
    return f"hmi.sharp_cea_720s[{number}][2011.02.15_02:00:00_TAI]"


def make(
    folder: Path, tiles: list[int], seed: int = 0, dim: int = DIM, encoder: str = "e" * 64
) -> tuple[EmbeddingInfo, np.ndarray]:
    """`tiles[i]` vectors for record i + 1, in two files; returns the vectors as stored."""
    vectors = np.random.default_rng(seed).normal(size=(sum(tiles), dim)).astype(np.float32)
    rows: list[dict[str, Any]] = []
    for number, count in enumerate(tiles, 1):
        for tile in range(count):
            rows.append({
                "row": len(rows), "shard": 0, "position": len(rows), "record": record(number),
                "harpnum": number, "t_rec": "2011.02.15_02:00:00_TAI",
                "split": "test" if number == 2 else "train", "tile_y": 16 * tile, "tile_x": 0,
                "pixel_cm": 7.3e7, "flux_mx": 1e21 * number, "mu": 0.9, "noaa_ars": "11158",
                "USFLUX": 1e22 * number,
                "TOTUSJH": float("nan") if number == 3 else 1000.0 * number,
                "R_VALUE": None,
            })  # fmt: skip
    half = len(vectors) // 2
    made_from = {**MADE_FROM, "encoder": encoder}
    for shard, part in enumerate((vectors[:half], vectors[half:])):
        write_part(folder, shard, part, made_from)
    table = pa.Table.from_pylist(rows)
    table = table.add_column(
        0, "embedding", pa.array([part_name(i >= half) for i in range(len(rows))])
    )
    info = publish(
        folder, table, encoder={"digest": encoder, "run": "00000-fake-ssl", "orbit": True},
        dataset={"name": "fake", "id": "d" * 64, "pixel_cm": 7.3e7, "settings": {}},
        splits=["train", "test"], dim=dim,
        files={part_name(shard): part_note(folder, shard, made_from) for shard in (0, 1)},
    )  # fmt: skip
    return info, vectors
