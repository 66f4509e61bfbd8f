"""``sunpipe ssl``: SimSiam on the training split of the shards, one process, exact resume."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sunpipe import checkpoint
from sunpipe.config import to_dict
from sunpipe.dist import discover
from sunpipe.errors import DataError, Stopped, UsageError
from sunpipe.paths import Layout
from sunpipe.physics.channels import check_channels
from sunpipe.run import Run, find_run, read_stats, ssl_name
from sunpipe.settings import Config
from sunpipe.shards.cache import node_cache
from sunpipe.shards.loader import Loader
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id, read_info
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue
from sunpipe.train.clock import due, peak_memory_bytes
from sunpipe.train.ssl_trainer import Trainer, images_to_show, make_encoder

# What may change between a run and its continuation without changing the weights.
FREE = frozenset({"ssl.tick_kimg", "ssl.checkpoint_kimg", "ssl.keep_checkpoints"})
COLLAPSED = 0.9  # FACTS F11: above it the encoder gives every patch the same vector
WARM_UP = 0.1  # share of the run before collapse is judged


@dataclass
class Tick:
    """Sums since the last line of ``stats.jsonl``; they stay on the device."""

    images: int = 0
    batches: int = 0
    loss: torch.Tensor | float = 0.0
    collapse: torch.Tensor | float = 0.0
    data_wait: float = 0.0
    since: float = field(default_factory=time.perf_counter)

    def add(self, images: int, loss: torch.Tensor, collapse: torch.Tensor, wait: float) -> None:
        """One step."""
        self.images += images
        self.batches += 1
        self.loss = self.loss + loss.detach()
        self.collapse = self.collapse + collapse
        self.data_wait += wait

    def row(self, nimg: int, lr: float, device: torch.device) -> dict[str, Any]:
        """Means over the tick, as one row of ``stats.jsonl``."""
        batches = max(self.batches, 1)
        loss, collapse = float(self.loss) / batches, float(self.collapse) / batches
        seconds = time.perf_counter() - self.since
        return {
            "nimg": nimg,
            "kimg": nimg / 1000,
            "sec_per_kimg": 1000 * seconds / max(self.images, 1),
            "loss": loss,
            "collapse": collapse,
            "lr": lr,
            "data_wait_s": self.data_wait,
            "peak_memory_bytes": peak_memory_bytes(device),
        }


def tick_line(row: dict[str, Any]) -> str:
    """One row of the statistics for people."""
    return (
        f"kimg {row['kimg']:<8g} loss {row['loss']:+.4f}  collapse {row['collapse']:.3f}"
        f"  lr {row['lr']:.2e}  sec/kimg {row['sec_per_kimg']:.2f}  wait {row['data_wait_s']:.2f} s"
    )


def judge(row: dict[str, Any], total: int) -> None:
    """Stop a run that can only waste time.

    Raises
    ------
    DataError
        The loss is not finite, or after the warm-up all patches get one vector.
    """
    if not np.isfinite(row["loss"]):
        raise DataError(
            f"the loss is not finite at {row['kimg']:g} kimg; lower ssl.lr and start with --new"
        )
    if row["nimg"] > WARM_UP * total and row["collapse"] > COLLAPSED:
        raise DataError(
            f"the encoder collapsed (level {row['collapse']:.2f} > {COLLAPSED} at"
            f" {row['kimg']:g} kimg): every patch gets the same vector; change ssl.lr or ssl.batch"
            " and start with --new"
        )


def _loop(run: Run, trainer: Trainer, reader: ShardReader, seed: int, stop: StopFlag) -> None:
    settings, folder = trainer.settings, run.folder / "checkpoints"
    tick = Tick()
    pin = trainer.device.type == "cuda"
    with Loader(reader, seed, trainer.nimg, settings.batch, masks=True, pin=pin) as source:
        while trainer.nimg < trainer.total and not stop:
            before, lr, asked = trainer.nimg, trainer.lr, time.perf_counter()
            batch = next(source)
            wait = time.perf_counter() - asked
            tick.add(len(batch.rows), *trainer.step(batch.images, batch.masks), wait)
            last = trainer.nimg >= trainer.total
            if last or due(before, trainer.nimg, settings.tick_kimg):
                row = tick.row(trainer.nimg, lr, trainer.device)
                run.stats(row)
                run.log(tick_line(row))
                judge(row, trainer.total)
                run.status("running", nimg=trainer.nimg, total=trainer.total)
                tick = Tick()
            if last or (not stop and due(before, trainer.nimg, settings.checkpoint_kimg)):
                trainer.save(folder)
    if stop and trainer.nimg < trainer.total:
        if trainer.nimg:
            trainer.save(folder)
        run.status("stopped", nimg=trainer.nimg, total=trainer.total, reason=stop.reason)


def plan_ssl(config: Config) -> Result:
    """What `train_ssl` would do."""
    found = find_run(Layout.current(), ssl_name(config.name))
    info = read_info(Layout.current().shards(config.dataset))
    check_channels(info.channels)
    make_encoder(info, config.ssl)
    return {
        "run": str(found) if found else f"a new {ssl_name(config.name)}",
        "images": images_to_show(config.ssl),
        "train_rows": info.counts.get("train"),
    }


def _done(run: Run, nimg: int, total: int) -> Result:
    rows = read_stats(run.folder)
    run.status("done", nimg=nimg, total=total)
    return {"run": str(run.folder), "state": "done", **(rows[-1] if rows else {"nimg": nimg})}


def train_ssl(config: Config, new: bool = False, stop: StopFlag | None = None) -> Result:
    """Train the encoder, or continue, or say that it is done.

    Parameters
    ----------
    config : Config
        `dataset`, `seed` and ``[ssl]`` decide the result.
    new : bool
        Start a new run folder.
    stop : StopFlag, optional
        Polled after every batch; by default one that signals set.

    Raises
    ------
    Stopped
        A signal came; everything is saved.
    DataError
        No data, unknown channels, collapse, or a run of another configuration.
    UsageError
        Started on several ranks.
    """
    ranks = discover()
    if ranks.world > 1:
        raise UsageError(
            f"ssl runs as one process, but {ranks.source} started {ranks.world};"
            " start it with one task (srun -n 1)"
        )
    layout = Layout.current()
    reader = ShardReader(layout.shards(config.dataset), splits=("train",), cache=node_cache())
    check_channels(reader.info.channels)
    if not len(reader):
        raise DataError(f"dataset {config.dataset} has no rows in split train")
    about = {
        "kind": "ssl",
        "seed": config.seed,
        "data": {"name": config.dataset, "id": dataset_id(reader.info)},
        "ssl": to_dict(config.ssl),
    }
    run = Run.open(layout, ssl_name(config.name), about, FREE, new)
    checkpoint.sweep(run.folder / "checkpoints", run.log)
    newest = checkpoint.newest(run.folder / "checkpoints", run.log)
    nimg = checkpoint.load_state(newest)["nimg"] if newest else 0
    if nimg >= images_to_show(config.ssl):
        log(f"{run.folder.name} is finished at {nimg / 1000:g} kimg; nothing to do")
        return _done(run, nimg, nimg)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(config, reader.info, device)
    if newest is not None:
        trainer.load(newest)
    run.rewind_stats(trainer.nimg)
    run.log(f"{run.folder.name}: {len(reader)} patches, {trainer.nimg / 1000:g} of"
            f" {trainer.total / 1000:g} kimg, {device.type}")  # fmt: skip
    run.status("running", nimg=trainer.nimg, total=trainer.total)
    stop = StopFlag() if stop is None else stop
    try:
        with stop:
            _loop(run, trainer, reader, config.seed, stop)
    except Exception as error:
        run.status("failed", nimg=trainer.nimg, total=trainer.total, reason=str(error))
        raise
    if trainer.nimg < trainer.total:
        if stop.requeue:
            requeue()
        raise Stopped(f"ssl stopped by {stop.reason} at {trainer.nimg / 1000:g} kimg, saved in"
                      f" {run.folder.name}; run the same command again to continue")  # fmt: skip
    return _done(run, trainer.nimg, trainer.total)
