r"""Speed of ``sunpipe embed`` beside the bare forward pass of the same network.

After ``sunpipe ssl``::

    python benchmarks/embed.py --config configs/archive_hour.toml --images 4096 \
        --out benchmarks/results/embed.json

Three things are timed in turn, `--repeats` times, and their medians compared, in seconds of
the clock and in seconds of the processor (of all threads; of use where others work on the machine):

- ``forward``: the network on tensors that are already in memory, in its range, nothing else;
- ``embed``: what ``sunpipe embed`` does: shards read, checked and decoded, gauss, normalisation,
  forward pass, vectors on the host. With the orbit a patch passes 16 times, and the bare pass is
  that of 16 times as many images. With it a quarter of the images are taken;
- ``read``: reading, decoding and, on a CPU, normalising alone, on one thread, as embed does beside
  the passes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import document, write
from numpy.typing import NDArray

from sunpipe.config import load_config
from sunpipe.embed.embed import _batches, embed_shards
from sunpipe.embed.encoder import FieldEncoder, encoder_run
from sunpipe.paths import Layout
from sunpipe.shards.normalize import encode
from sunpipe.shards.reader import ShardReader


def exhaust(found: Iterable[Any]) -> None:
    for _ in found:
        pass


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """By the clock, and of the processor."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start[0], time.process_time() - start[1]


@torch.no_grad()
def forward(encoder: FieldEncoder, batches: list[torch.Tensor]) -> None:
    """The bare pass, as often as embed passes."""
    for batch in batches:
        for _ in encoder.ways:
            encoder.network(batch)


def compare(
    reader: ShardReader, encoder: FieldEncoder, shards: list[int], batch: int, repeats: int
) -> dict[str, Any]:
    """Images per second of each, medians, and the ratio that is asked for."""
    rows = np.isin(reader.records["shard"].to_numpy()[reader.rows], shards)
    fields = torch.from_numpy(reader.images(reader.rows[rows]))
    ready = [encode(part, encoder._settings).to(encoder.device) for part in fields.split(batch)]

    def prepare(stored: NDArray[Any]) -> torch.Tensor:
        return encoder.prepared(stored, reader.info.scale)

    works: dict[str, Callable[[], None]] = {
        "forward": lambda: forward(encoder, ready),
        "embed": lambda: exhaust(embed_shards(reader, encoder, shards, batch)),
        "read": lambda: exhaust(_batches(reader, shards, batch, prepare)),
    }
    for work in works.values():
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    found = {name: np.array(pairs) for name, pairs in times.items()}
    ratio = np.median(found["forward"] / found["embed"], axis=0)
    return {
        "images": len(fields), "passes": len(encoder.ways),
        "images_per_s": {name: float(len(fields) / np.median(pairs[:, 0]))
                         for name, pairs in found.items()},
        "seconds": {name: pairs[:, 0].tolist() for name, pairs in found.items()},
        "processor_seconds": {name: pairs[:, 1].tolist() for name, pairs in found.items()},
        "embed_of_forward": float(ratio[0]), "embed_of_forward_processor": float(ratio[1]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config, layout = load_config(options.config, options.overrides), Layout.current()
    reader = ShardReader(layout.shards(config.dataset), splits=config.embed.splits)
    per_shard = np.bincount(reader.records["shard"].to_numpy()[reader.rows])
    many = int(np.searchsorted(np.cumsum(per_shard), options.images)) + 1
    results = {}
    for name, orbit in (("orbit", True), ("one_pass", False)):
        encoder = FieldEncoder.load(encoder_run(layout, config.name), orbit)
        shards = list(range(max(many // 4, 1) if orbit else many))
        found = compare(reader, encoder, shards, config.embed.batch, options.repeats)
        results[name] = found
        print(f"{name}: embed at {found['embed_of_forward']:.1%} of the bare forward pass,"
              f" {found['embed_of_forward_processor']:.1%} by processor time",
              {key: round(value) for key, value in found["images_per_s"].items()})  # fmt: skip
    about = {"encoder": encoder.describe(), "batch": config.embed.batch}
    if options.out:
        write(document("embed", {**about, **results}), options.out)


if __name__ == "__main__":
    main()
