"""Training StyleGAN2: one loop, clocked in images, resumed exactly.

Everything random is a pure function of (seed, rank, nimg, phase) and the order
of samples of (seed, nimg), so that a resume needs no random state.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe import checkpoint, dist
from sunpipe.config import to_dict
from sunpipe.errors import DataError, Stopped, SunpipeError, UsageError
from sunpipe.files import write_json
from sunpipe.paths import Layout
from sunpipe.run import Run, read_stats
from sunpipe.settings import Config
from sunpipe.shards.order import sample_indices
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id
from sunpipe.stop import StopFlag, requeue
from sunpipe.train.engine import any_rank, average_over_ranks, from_main, initialize
from sunpipe.train.sinks import TensorboardSink, save_grid
from sunpipe.train.trainer import Trainer

FREE_KEYS = frozenset(
    f"train.{key}"
    for key in ("kimg", "tick_kimg", "checkpoint_kimg", "image_kimg", "keep_checkpoints",
                "zero.stage", "zero.offload")
)  # fmt: skip


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: on the GPU what torch allocated, else resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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


def _check_batch(cfg: Config, ranks: dist.Ranks, images: int) -> None:
    if images == 0:
        raise DataError(f"dataset {cfg.dataset} has no training images; check shard.test_harps")
    if cfg.train.batch % ranks.world:
        raise UsageError(
            f"train.batch={cfg.train.batch} does not divide over {ranks.world} ranks;"
            f" use a multiple of {ranks.world}"
        )


def _open_run(
    cfg: Config, reader: ShardReader, ranks: dist.Ranks, new: bool
) -> tuple[Run | None, Path]:
    """Rank 0 opens the run folder; if that is refused, all leave and rank 0 says why."""
    run, fault = None, None
    if ranks.is_main:
        try:
            run = Run.open(Layout.current(), cfg.name, run_config(cfg, reader), FREE_KEYS, new)
        except SunpipeError as error:
            fault = error
    folder, code = from_main(
        (str(run.folder) if run else "", fault.exit_code if fault else 0), ranks
    )
    if fault is not None:
        raise fault
    if code:
        sys.exit(code)
    return run, Path(folder)


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
    """
    ranks = dist.discover()
    reader = ShardReader(Layout.current().shards(cfg.dataset), splits=("train",))
    _check_batch(cfg, ranks, len(reader))
    with StopFlag() as stop:
        device = initialize(ranks)
        run, folder = _open_run(cfg, reader, ranks, new)
        start = checkpoint.newest(folder / "checkpoints", run.log if run else lambda _: None)
        target = math.ceil(cfg.train.kimg * 1000 / cfg.train.batch) * cfg.train.batch
        if start is not None and checkpoint.load_state(start)["nimg"] >= target:
            return _finished(run, target)
        trainer = Trainer(cfg, reader, ranks, device, start)
        if run is not None:
            _announce(run, trainer, start)
        _loop(trainer, run, stop, target)
    return _finished(run, target)


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


def _finished(run: Run | None, target: int) -> dict[str, Any] | None:
    if run is None:
        return None
    rows = read_stats(run.folder)
    run.status("done", nimg=target)
    return {"run": str(run.folder), "state": "done", **(rows[-1] if rows else {"nimg": target})}


def _due(nimg: int, batch: int, every_kimg: float) -> bool:
    """Whether an interval of `every_kimg` was crossed by the last batch."""
    every = every_kimg * 1000
    return math.floor(nimg / every) > math.floor((nimg - batch) / every)


@dataclasses.dataclass
class Tick:
    """What happened since the last status line."""

    start: float
    nimg: int
    data_wait: float = 0.0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, seen: dict[str, torch.Tensor]) -> None:
        """Accumulate observations of one iteration."""
        for key, value in seen.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value)
            self.counts[key] = self.counts.get(key, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean of each observation."""
        return {key: self.sums[key] / self.counts[key] for key in sorted(self.sums)}


def _loop(trainer: Trainer, run: Run | None, stop: StopFlag, target: int) -> None:
    t, ranks = trainer.t, trainer.ranks
    sink = TensorboardSink(run.folder / "tensorboard", trainer.nimg) if run else None
    if run:
        run.status("running", nimg=trainer.nimg, target=target)
    tick = Tick(time.perf_counter(), trainer.nimg)
    while trainer.nimg < target:
        before = time.perf_counter()
        real = trainer.next_batch()
        tick.data_wait += time.perf_counter() - before
        tick.add(trainer.iterate(real))
        _refuse_nonfinite(tick, trainer, run)
        stopping = any_rank(bool(stop), ranks, trainer.device)
        last = trainer.nimg >= target or stopping
        if last or _due(trainer.nimg, t.batch, t.tick_kimg):
            _report(trainer, run, sink, tick, target)
            tick = Tick(time.perf_counter(), trainer.nimg)
        if run and (trainer.nimg >= target or _due(trainer.nimg, t.batch, t.image_kimg)):
            name = f"fakes-{checkpoint.folder_name(trainer.nimg)}.png"
            save_grid(trainer.grid(), trainer.reader.info, run.folder / "images" / name,
                      f"generated, {trainer.nimg / 1000:g} kimg")  # fmt: skip
        if last or _due(trainer.nimg, t.batch, t.checkpoint_kimg):
            trainer.save(run)
        if stopping and trainer.nimg < target:
            _stop(trainer, run, stop, target)
    if sink:
        sink.close()


def _refuse_nonfinite(tick: Tick, trainer: Trainer, run: Run | None) -> None:
    bad = [key for key, value in tick.sums.items() if not math.isfinite(value)]
    if bad:
        if run:
            run.status("failed", nimg=trainer.nimg, reason=f"{', '.join(bad)} not finite")
        raise DataError(
            f"{', '.join(bad)} became non-finite at {trainer.nimg / 1000:g} kimg; nothing of it was"
            " saved. Lower the learning rates or raise r1_gamma, and run again: it continues from"
            " the last checkpoint"
        )


def _report(
    trainer: Trainer, run: Run | None, sink: TensorboardSink | None, tick: Tick, target: int
) -> None:
    seconds = time.perf_counter() - tick.start
    means = tick.means()
    packed = torch.tensor([means.get(key, 0.0) for key in means], dtype=torch.float64)
    average_over_ranks(packed, trainer.ranks)
    if run is None:
        return
    kimg = max(trainer.nimg - tick.nimg, 1) / 1000
    row = {
        "nimg": trainer.nimg, "kimg": trainer.nimg / 1000, "sec_per_kimg": seconds / kimg,
        **dict(zip(means, packed.tolist(), strict=True)),
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
