"""Training StyleGAN2: one loop, clocked in images, resumed exactly.

Everything random is a pure function of (seed, rank, nimg, phase) and the order
of samples of (seed, nimg), so that a resume needs no random state.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from sunpipe import checkpoint, dist
from sunpipe.config import to_dict
from sunpipe.errors import EXIT_FAILURE, DataError, Stopped, SunpipeError, UsageError
from sunpipe.files import write_json
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.run import Run, network_identity, read_stats
from sunpipe.settings import Config
from sunpipe.shards.cache import node_cache
from sunpipe.shards.order import sample_indices
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id
from sunpipe.stop import StopFlag, requeue
from sunpipe.train.clock import due, peak_memory_bytes
from sunpipe.train.engine import any_rank, average_over_ranks, from_main, initialize
from sunpipe.train.sinks import TensorboardSink, save_grid
from sunpipe.train.trainer import Trainer

Found = TypeVar("Found")
FREE_KEYS = frozenset(
    f"train.{key}"
    for key in ("kimg", "tick_kimg", "checkpoint_kimg", "image_kimg", "keep_checkpoints",
                "zero.stage", "zero.offload")
)  # fmt: skip


def run_config(cfg: Config, reader: ShardReader) -> dict[str, Any]:
    """What decides a run's outcome, as stored in ``config.json``."""
    info = reader.info
    return {
        "name": cfg.name,
        "seed": cfg.seed,
        "train": to_dict(cfg.train),
        "data": {
            "dataset": cfg.dataset, "dataset_id": dataset_id(info), "channels": info.channels,
            "units": info.units, "resolution": info.resolution, "images": len(reader),
            "pixel_cm": float(np.median(reader.pixel_cm[reader.rows])),
        },
    }  # fmt: skip


def _check(cfg: Config, ranks: dist.Ranks, reader: ShardReader) -> None:
    size = reader.info.resolution
    if size < 8 or size & (size - 1):
        raise UsageError(
            f"dataset {cfg.dataset} has {size} x {size} pixels, StyleGAN2 needs a power of two of"
            " at least 8; change shard.tile or shard.reduce and run sunpipe shard"
        )
    if len(reader) == 0:
        raise DataError(f"dataset {cfg.dataset} has no training images; check shard.test_harps")
    if cfg.train.batch % ranks.world:
        raise UsageError(
            f"train.batch={cfg.train.batch} does not divide over {ranks.world} ranks;"
            f" use a multiple of {ranks.world}"
        )


def _on_main(work: Callable[[], Found], ranks: dist.Ranks) -> Found | None:
    """Do `work` on rank 0; if it is refused, all ranks leave and rank 0 says why."""
    found, fault = None, None
    if ranks.is_main:
        try:
            found = work()
        except (SunpipeError, OSError) as error:
            fault = error
    code = from_main(getattr(fault, "exit_code", EXIT_FAILURE) if fault else 0, ranks)
    if fault is not None:
        raise fault
    if code:
        sys.exit(code)
    return found


def train(cfg: Config, new: bool = False) -> dict[str, Any] | None:
    """Train, or continue the newest run of this name, until ``train.kimg``.

    Returns
    -------
    dict or None
        Run folder and last tick on rank 0, None elsewhere.

    Raises
    ------
    Stopped
        After a signal, once the checkpoint is safe.
    DataError
        No data, a run of another configuration, another process training the
        same run, or a loss that is not finite.
    """
    ranks, layout = dist.discover(), Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",), cache=node_cache())
    _check(cfg, ranks, reader)
    target = math.ceil(cfg.train.kimg * 1000 / cfg.train.batch) * cfg.train.batch
    with StopFlag() as stop, ExitStack() as held:
        device = initialize(ranks)

        def open_run() -> tuple[Run, Path | None]:
            held.enter_context(running(layout, "train", cfg.name))
            run = Run.open(layout, cfg.name, run_config(cfg, reader), FREE_KEYS, new)
            return run, checkpoint.newest(run.folder / "checkpoints", run.log)

        run, newest = _on_main(open_run, ranks) or (None, None)
        start = Path(where) if (where := from_main(str(newest or ""), ranks)) else None
        done = checkpoint.load_state(start)["nimg"] if start is not None else 0
        if done < target:
            made_of = network_identity(run_config(cfg, reader))
            trainer = Trainer(cfg, reader, ranks, device, start, made_of)
            if run is not None:
                _announce(run, trainer, start)
            _loop(trainer, run, stop, target)
            done = trainer.nimg
        return _finished(run, done)


def _announce(run: Run, trainer: Trainer, start: Path | None) -> None:
    run.rewind_stats(trainer.nimg)
    write_json(run.folder / "deepspeed.json", {"G": trainer.engine_g.config,
                                               "D": trainer.engine_d.config})  # fmt: skip
    info, ranks = trainer.reader.info, trainer.ranks
    count = {name: sum(p.numel() for p in network.parameters())
             for name, network in (("G", trainer.G), ("D", trainer.D))}  # fmt: skip
    run.log(
        f"{run.folder.name}: {len(trainer.reader)} images {len(info.channels)} x"
        f" {info.resolution} x {info.resolution}, G {count['G'] / 1e6:.2f} M,"
        f" D {count['D'] / 1e6:.2f} M parameters, {ranks.world} rank(s) ({ranks.source}),"
        f" {trainer.device.type}, ZeRO-{trainer.t.zero.stage}"
        f"{' with CPU offload' if trainer.t.zero.offload and trainer.t.zero.stage else ''}"
    )
    if start is not None:
        run.log(f"resumed from {start.name}")
    else:
        rows = trainer.reader.rows[sample_indices(len(trainer.reader), trainer.cfg.seed, 0, 24)]
        save_grid(trainer.reader.images(rows), info, run.folder / "images" / "reals.png", "real")


def _finished(run: Run | None, nimg: int) -> dict[str, Any] | None:
    if run is None:
        return None
    rows = read_stats(run.folder)
    run.status("done", nimg=nimg)
    return {"run": str(run.folder), "state": "done", **(rows[-1] if rows else {"nimg": nimg})}


@dataclasses.dataclass
class Tick:
    """What happened since the last status line; sums stay on the device."""

    nimg: int
    start: float = dataclasses.field(default_factory=time.perf_counter)
    data_wait: float = 0.0
    sums: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, seen: dict[str, torch.Tensor]) -> None:
        """Accumulate observations of one iteration."""
        for key, value in seen.items():
            total = value.reshape([]).double()
            self.sums[key] = self.sums[key] + total if key in self.sums else total
            self.counts[key] = self.counts.get(key, 0) + 1

    def names(self) -> list[str]:
        """Observations in a fixed order."""
        return sorted(self.sums)

    def means(self) -> torch.Tensor:
        """Mean of each observation, on the device, in the order of `names`."""
        return torch.stack([self.sums[key] / self.counts[key] for key in self.names()])


def _loop(trainer: Trainer, run: Run | None, stop: StopFlag, target: int) -> None:
    t, ranks = trainer.t, trainer.ranks
    sink = TensorboardSink(run.folder / "tensorboard", trainer.nimg) if run else None
    if run:
        run.status("running", nimg=trainer.nimg, target=target)
    tick = Tick(trainer.nimg)
    with trainer.batches() as batches:
        while trainer.nimg < target:
            before, asked = trainer.nimg, time.perf_counter()
            stored = next(batches).images
            tick.data_wait += time.perf_counter() - asked
            tick.add(trainer.iterate(stored))
            stopping = any_rank(bool(stop), ranks, trainer.device)
            end = trainer.nimg >= target
            ticks, saves, draws = (
                end or stopping or due(before, trainer.nimg, every)
                for every in (t.tick_kimg, t.checkpoint_kimg, t.image_kimg)
            )
            if ticks or saves or draws:
                _refuse_nonfinite(tick, trainer, run)
            if ticks:
                _report(trainer, run, sink, tick, target)
                tick = Tick(trainer.nimg)
            if run and draws:
                name = f"fakes-{checkpoint.folder_name(trainer.nimg)}.png"
                save_grid(trainer.grid(), trainer.reader.info, run.folder / "images" / name,
                          f"generated, {trainer.nimg / 1000:g} kimg")  # fmt: skip
            if saves:
                trainer.save(run)
            if stopping and not end:
                _stop(trainer, run, stop, target)
    if sink:
        sink.close()


def _refuse_nonfinite(tick: Tick, trainer: Trainer, run: Run | None) -> None:
    """Stop on every rank when a loss of any rank is not finite; nothing of it is saved."""
    means = tick.means().tolist() if tick.sums else []
    bad = [key for key, mean in zip(tick.names(), means, strict=True) if not math.isfinite(mean)]
    if not any_rank(bool(bad), trainer.ranks, trainer.device):
        return
    what = f"{', '.join(bad) or 'a loss of another rank'} not finite"
    if run:
        run.status("failed", nimg=trainer.nimg, reason=what)
    raise DataError(
        f"{what} before {trainer.nimg / 1000:g} kimg; the last checkpoint is from before that."
        " Lower the learning rates or raise r1_gamma, and start with --new"
    )


def _report(
    trainer: Trainer, run: Run | None, sink: TensorboardSink | None, tick: Tick, target: int
) -> None:
    seconds = time.perf_counter() - tick.start
    means = average_over_ranks(tick.means(), trainer.ranks)
    if run is None:
        return
    kimg = max(trainer.nimg - tick.nimg, 1) / 1000
    row = {
        "nimg": trainer.nimg, "kimg": trainer.nimg / 1000, "sec_per_kimg": seconds / kimg,
        **dict(zip(tick.names(), means.tolist(), strict=True)),
        "data_wait_s": tick.data_wait, "peak_memory_bytes": peak_memory_bytes(trainer.device),
    }  # fmt: skip
    run.stats(row)
    run.status("running", nimg=trainer.nimg, target=target)
    eta = (target - trainer.nimg) / 1000 * row["sec_per_kimg"]
    run.log(
        f"kimg {row['kimg']:.3f}/{target / 1000:g}  s/kimg {row['sec_per_kimg']:.2f}"
        f"  G {row['loss_G']:.3f}  D {row['loss_D']:.3f}  data wait {tick.data_wait:.2f} s"
        f"  memory {row['peak_memory_bytes'] / 2**30:.2f} GiB  ETA {eta / 60:.1f} min"
    )
    if sink:
        sink.add(row)


def _stop(trainer: Trainer, run: Run | None, stop: StopFlag, target: int) -> None:
    # Both calls wait for all ranks: none may exit before rank 0 has saved and requeued,
    # because a launcher may kill the others when one ends with an exit code.
    wanted = any_rank(stop.requeue, trainer.ranks, trainer.device)
    again = from_main(requeue() if run is not None and wanted else False, trainer.ranks)
    nimg = trainer.nimg
    if run is not None:
        run.status("stopped", nimg=nimg, target=target, signal=stop.reason, requeued=again)
    raise Stopped(
        f"stopped by {stop.reason or 'another rank'} at {nimg / 1000:g} kimg after a checkpoint; "
        + ("Slurm starts it again" if again else "run the same command again to continue")
    )
