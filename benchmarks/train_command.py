"""A training as a user starts it: s/kimg of ``sunpipe train`` on images made up for it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.dataset.hdf5 import write_shard
from sunpipe.files import sha256
from sunpipe.run import read_stats
from sunpipe.shards.schema import DatasetInfo

REPO = Path(__file__).resolve().parent.parent
NAME = "made-up"
TICK = 16  # iterations: each holds as many of R1 and path length as any other


def make_dataset(folder: Path, count: int, channels: int, side: int) -> None:
    """`count` images of waves and noise in gauss, in one shard."""
    folder.mkdir(parents=True)
    names = ["Br", "Bt", "Bp"][:channels]
    about: dict[str, Any] = {"channels": names, "units": ["Gauss"] * channels, "scale": 0.5,
                             "max_error": 0.25}  # fmt: skip
    rng = np.random.default_rng(0)
    x = np.arange(side) / side
    mask = np.ones((side, side), np.uint8)

    def image() -> np.ndarray:
        waves = 900 * np.sin(40 * rng.random() * x + 9 * x[:, None])
        noise = 40 * rng.standard_normal((channels, side, side), np.float32)
        return np.asarray(waves + noise, np.int16)

    path = folder / "shard-00000.h5"
    write_shard(path, ((image(), mask) for _ in range(count)), count, side, "int16", about,
                "contiguous")  # fmt: skip
    rows = np.arange(count)
    table = {"row": rows, "shard": 0 * rows, "position": rows, "split": ["train"] * count,
             "pixel_cm": np.full(count, 7e7)}  # fmt: skip
    pq.write_table(pa.table(table), folder / "records.parquet")
    DatasetInfo(
        name=folder.name, product="sharp_vector", **about, resolution=side, tile=side, stride=0,
        reduce=1, dtype="int16", storage="contiguous", max_relative_error=0.0,
        shards={path.name: sha256(path)}, files={}, counts={}, settings={}, versions={},
    ).write(folder)  # fmt: skip


def measure(
    resolution: int, channels: int, batch: int, device: str, ticks: int = 4, images: int = 128,
    **settings: str | int,
) -> dict[str, Any]:  # fmt: skip
    """Seconds per thousand images by the run's own ``stats.jsonl``, loading included.

    Parameters
    ----------
    device : str
        ``cpu`` hides the GPU from the training.
    ticks : int
        Parts of 16 iterations that are timed, after one that is not.
    settings
        Keys of ``[train]``, dots written as two underscores.
    """
    every = TICK * batch / 1000
    kimg = (ticks + 1) * every
    given = {
        "batch": batch, "kimg": kimg, "tick_kimg": every, "checkpoint_kimg": kimg,
        "image_kimg": kimg, "zero__stage": 0, "zero__offload": "false", **settings,
    }  # fmt: skip
    words = [f"train.{key.replace('__', '.')}={value}" for key, value in given.items()]
    words += [f"name={NAME}", f"dataset={NAME}"]
    with tempfile.TemporaryDirectory() as root:
        make_dataset(Path(root) / "shards" / NAME, images, channels, resolution)
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        done = subprocess.run(
            [sys.executable, "-m", "sunpipe", "train", *(f"--set={word}" for word in words)],
            cwd=REPO, env={**os.environ, "SUNPIPE_ROOT": root, **hidden}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"sunpipe train ended with {done.returncode}:\n{done.stderr[-2000:]}")
        rows = read_stats(Path(root) / "runs" / f"00000-{NAME}")[1:]
    peaks = [row["peak_memory_bytes"] for row in rows]
    return {
        "batch": batch, "s_per_kimg": statistics.median(row["sec_per_kimg"] for row in rows),
        "data_wait_s": statistics.median(row["data_wait_s"] for row in rows),
        "ticks": len(rows), "peak_bytes": max(peaks) if device == "cuda" else "not measured",
    }  # fmt: skip
