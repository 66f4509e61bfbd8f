"""Distances of generated from real images while training, shared by all ranks."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as torch_dist

from sunpipe import dist
from sunpipe.errors import EXIT_FAILURE, DataError, SunpipeError
from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.lens import Lens, spread_rows
from sunpipe.evaluate.reference import FEWEST, Reference, compare, read_block
from sunpipe.run import Run, read_stats
from sunpipe.train.begin import on_main
from sunpipe.train.clock import due
from sunpipe.train.engine import from_main
from sunpipe.train.trainer import Trainer

FILE = "metric-generator"
LEAST_SHARE = 0.5  # of the generated images; what fewer say is no longer about the generator
Found = TypeVar("Found")


def on_each(work: Callable[[], Found], ranks: dist.Ranks) -> list[Found]:
    """What `work` gives on each rank, on all of them; if it fails on one, all leave.

    `work` must not wait for other ranks: one that failed would not come.

    Raises
    ------
    Exception
        On the rank where it happened.
    SunpipeError
        On rank 0, with what happened elsewhere; other ranks exit with its code.
    """
    if ranks.world == 1:
        return [work()]
    mine, fault = None, None
    try:
        mine = work()
    except Exception as error:  # raised below, once all ranks know
        fault = error
    said = None
    if fault is not None:
        code = getattr(fault, "exit_code", EXIT_FAILURE)
        said = (code, f"rank {ranks.rank}: {str(fault) or type(fault).__name__}")
    answers: list[Any] = [None] * ranks.world
    torch_dist.all_gather_object(answers, (mine, said))
    if fault is not None:
        raise fault
    for _, words in answers:
        if words is not None and ranks.is_main:
            heard = SunpipeError(words[1])
            heard.exit_code = words[0]
            raise heard
        if words is not None:
            sys.exit(words[0])
    return [found for found, _ in answers]


class Metrics:
    """Real images' statistics, read once, and the comparison with those of G_ema.

    Every rank reads and generates its share, which may be empty; the images are
    the same at any number of ranks, and from time to time, so that the curve shows
    G alone. As many are generated as there are real ones, at most
    ``train.metrics.count``.

    Parameters
    ----------
    alive : callable
        Told after every batch that this rank goes on.
    """

    def __init__(
        self, trainer: Trainer, run: Run | None, alive: Callable[[], None] = lambda: None
    ) -> None:
        self.trainer, self.run, self.ranks, self.alive = trainer, run, trainer.ranks, alive
        settings, reader = trainer.t.metrics, trainer.reader
        rows = spread_rows(reader, settings.count)
        self.count = len(rows)

        lens: list[Lens] = []

        def read() -> FeatureBlock:
            lens.append(Lens.of(reader, trainer.device))
            mine = rows[self.ranks.rank :: self.ranks.world]
            return read_block(lens[0], reader, mine, settings.batch)

        block = FeatureBlock.concat(on_each(read, self.ranks))
        self.reference = Reference.from_block(lens[0], block)

    def lacks_row(self) -> bool:
        """Whether the metrics are due at the images shown so far, and were not taken.

        The same answer on all ranks.
        """
        t, nimg = self.trainer.t, self.trainer.nimg
        if not nimg or not due(nimg - t.batch, nimg, t.metrics.kimg):
            return False
        rows = read_stats(self.run.folder, FILE) if self.run else []
        return bool(from_main(not any(row["nimg"] == nimg for row in rows), self.ranks))

    def _made(self) -> tuple[FeatureBlock, int]:
        """Features of this rank's generated images, and how many of them were left out."""
        samples = range(self.trainer.data_rank, self.count, self.trainer.data_world)
        batch, blocks, left_out = self.trainer.t.metrics.batch, [], 0
        for first in range(0, len(samples), batch):
            fields = self.trainer.fields("metrics", samples[first : first + batch])
            block, bad = self.reference.lens.finite_features(fields)
            blocks.append(block)
            left_out += bad
            self.alive()
        return FeatureBlock.concat(blocks or [self.reference.lens.nothing()]), left_out

    def measure(self) -> dict[str, Any] | None:
        """Append a row to ``metric-generator.jsonl``; every rank calls it, rank 0 returns it."""
        started = time.perf_counter()
        # the ranks of a group of stripes all hold the same images
        shares = on_each(self._made, self.ranks)[:: self.trainer.t.compute.stripes]

        def write() -> dict[str, Any]:
            assert self.run is not None
            nimg = self.trainer.nimg
            row = {"nimg": nimg, "kimg": nimg / 1000, **distances(self.reference, shares),
                   "seconds": time.perf_counter() - started}  # fmt: skip
            self.run.stats(row, FILE)
            self.run.log(line(row))
            return row

        return on_main(write, self.ranks)


def distances(
    reference: Reference, shares: Sequence[tuple[FeatureBlock, int]]
) -> dict[str, float | None]:
    """Distances of the generated images of all ranks that are finite, and what was left out.

    Parameters
    ----------
    shares : sequence of (FeatureBlock, int)
        From `Lens.finite_features`, of each rank.

    Returns
    -------
    dict
        Those of `compare`, all None where under 64 images or under half of them
        are left; ``images``, the number generated, and ``not_finite``, the share of
        them that was left out.
    """
    block = FeatureBlock.concat(block for block, _ in shares)
    images = len(block) + sum(bad for _, bad in shares)
    about: dict[str, float | None] = {"images": images, "not_finite": 1 - len(block) / images}
    if len(block) < max(FEWEST, LEAST_SHARE * images):
        return dict.fromkeys(compare(reference, reference.block)) | about
    try:
        found = compare(reference, block)
    except ValueError as error:  # an eigenvalue that does not converge, say
        raise DataError(f"distances cannot be computed: {error}") from error
    return {name: value if math.isfinite(value) else None for name, value in found.items()} | about


def line(row: dict[str, Any]) -> str:
    """A row as one line of the log."""
    bad = round(row["not_finite"] * row["images"])
    spoilt = f"{bad} of {row['images']} generated images not finite" if bad else ""
    words = [f"kimg {row['kimg']:.3f}"]
    if row["fd_random"] is None or row["spectrum_db"] is None:
        words.append("no distances" + (f": {spoilt}" if spoilt else ""))
    else:
        words.append(f"Frechet distance {row['fd_random']:.4g}")
        words.append(f"spectrum {row['spectrum_db']:.2f} dB")
        words += [f"{spoilt}, left out"] if spoilt else []
    return "  ".join([*words, f"({row['seconds']:.1f} s)"])
