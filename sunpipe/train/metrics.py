"""Distances of generated from real images while training, shared by all ranks."""

from __future__ import annotations

import time
from typing import Any

import torch.distributed as torch_dist

from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.reference import Reference, compare
from sunpipe.run import Run, read_stats
from sunpipe.train.begin import on_main
from sunpipe.train.clock import due
from sunpipe.train.engine import from_main
from sunpipe.train.trainer import Trainer

FILE = "metric-generator"


class Metrics:
    """Real images' statistics, read once, and the comparison with those of G_ema.

    Every rank reads and generates its share; the images are the same at any
    number of ranks, and from time to time, so that the curve shows G alone.
    """

    def __init__(self, trainer: Trainer, run: Run | None) -> None:
        self.trainer, self.run, self.ranks = trainer, run, trainer.ranks
        settings, world = trainer.t.metrics, self.ranks.world
        self.reference = Reference.of(
            trainer.reader, settings, device=trainer.device, rank=self.ranks.rank, world=world,
            gather=self._gather if world > 1 else None,
        )  # fmt: skip

    def _gather(self, block: FeatureBlock) -> FeatureBlock:
        blocks: list[Any] = [None] * self.ranks.world
        torch_dist.all_gather_object(blocks, block)
        return FeatureBlock.concat(blocks)

    def _gather_made(self, block: FeatureBlock) -> FeatureBlock:
        """Join what each group of stripes made: its ranks all hold the same images."""
        blocks: list[Any] = [None] * self.ranks.world
        torch_dist.all_gather_object(blocks, block)
        return FeatureBlock.concat(blocks[:: self.trainer.t.compute.stripes])

    def lacks_row(self) -> bool:
        """Whether the metrics are due at the images shown so far, and were not taken.

        The same answer on all ranks.
        """
        t, nimg = self.trainer.t, self.trainer.nimg
        if not nimg or not due(nimg - t.batch, nimg, t.metrics.kimg):
            return False
        rows = read_stats(self.run.folder, FILE) if self.run else []
        return bool(from_main(not any(row["nimg"] == nimg for row in rows), self.ranks))

    def measure(self) -> dict[str, Any] | None:
        """Append a row to ``metric-generator.jsonl``; every rank calls it, rank 0 returns it."""
        settings, world, started = self.trainer.t.metrics, self.ranks.world, time.perf_counter()
        samples = range(self.trainer.data_rank, settings.count, self.trainer.data_world)
        batch = settings.batch
        block = FeatureBlock.concat(
            self.reference.features(self.trainer.fields("metrics", samples[first : first + batch]))
            for first in range(0, len(samples), batch)
        )
        block = self._gather_made(block) if world > 1 else block

        def write() -> dict[str, Any]:
            assert self.run is not None
            nimg = self.trainer.nimg
            row = {"nimg": nimg, "kimg": nimg / 1000, **compare(self.reference, block),
                   "seconds": time.perf_counter() - started}  # fmt: skip
            self.run.stats(row, FILE)
            self.run.log(
                f"kimg {row['kimg']:.3f}  Frechet distance {row['fd_random']:.4g}"
                f"  spectrum {row['spectrum_db']:.2f} dB  ({row['seconds']:.1f} s)"
            )
            return row

        return on_main(write, self.ranks)
