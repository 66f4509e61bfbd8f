"""What happens before a training starts: faults named, the run folder, the first lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sunpipe import dist
from sunpipe.config import to_dict
from sunpipe.errors import EXIT_FAILURE, SunpipeError
from sunpipe.evaluate.reference import check_metrics
from sunpipe.files import write_json
from sunpipe.run import Run
from sunpipe.settings import Config
from sunpipe.shards.order import sample_indices
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id
from sunpipe.train.engine import from_main
from sunpipe.train.ledger import Device, ledger
from sunpipe.train.plan import predicted
from sunpipe.train.refuse import check_images, check_layout
from sunpipe.train.sinks import check_sinks, save_grid
from sunpipe.train_settings import TrainSettings

if TYPE_CHECKING:
    from sunpipe.train.trainer import Trainer

Found = TypeVar("Found")
# What may change between a run and its continuation; `layout_notes` tells when that is felt.
FREE_KEYS = frozenset(
    f"train.{key}"
    for key in ("kimg", "tick_kimg", "checkpoint_kimg", "image_kimg", "keep_checkpoints",
                "timeout_s", "hang_s", "zero.stage", "zero.offload",
                "compute.checkpoint", "compute.checkpoint_from", "compute.channels_last",
                "compute.accumulate", "compute.stripes", "compute.stripes_from",
                "watch.nonfinite", "watch.max_skips", "watch.logit_gap", "watch.diversity",
                "metrics.kimg", "metrics.count", "metrics.batch")
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


def check(cfg: Config, ranks: dist.Ranks, reader: ShardReader) -> None:
    """Refuse what cannot be trained, before anything is written.

    Raises
    ------
    UsageError
        A resolution, batch, number of ranks, augmentation or normalisation that does not fit.
    DataError
        No training images.
    """
    check_layout(cfg.train, ranks.world)
    info = reader.info
    check_images(cfg, info.resolution, info.channels, info.units, len(reader))
    check_metrics(reader, cfg.train.metrics)
    check_sinks(cfg.track)


def layout_notes(t: TrainSettings, micro: int) -> list[str]:
    """Where the result depends on how a batch is shared out, one sentence each.

    Parameters
    ----------
    micro : int
        Samples of one pass of one rank.
    """
    notes, group = [], t.model.mbstd_group
    r1 = max(micro // t.r1_batch_shrink, 1)
    for what, count in (("a pass", micro), ("a penalty", r1)):
        if count % group:
            notes.append(
                f"{what} holds {count} samples, no multiple of train.model.mbstd_group={group}: the"
                " minibatch statistic, and so the result, depends on the number of ranks and passes"
            )
            break
    for name, shrink in (("pl", t.pl_batch_shrink), ("r1", t.r1_batch_shrink)):
        if micro % shrink:
            notes.append(
                f"train.{name}_batch_shrink={shrink} does not divide the {micro} samples of a pass:"
                f" the penalty takes {max(micro // shrink, 1)} of them"
            )
    if t.compute.accumulate > 1:
        also = " and the bars of relativistic_average" if t.loss == "relativistic_average" else ""
        notes.append(f"with train.compute.accumulate the mean of path lengths{also} is over one"
                     " pass, not over the batch")  # fmt: skip
    return notes


def on_main(work: Callable[[], Found], ranks: dist.Ranks) -> Found | None:
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


def announce(run: Run, trainer: Trainer, start: Path | None) -> None:
    """First lines of a run or its continuation, ``deepspeed.json``, ``plan.json``, real images."""
    run.rewind_stats(trainer.nimg)
    write_json(run.folder / "deepspeed.json", {"G": trainer.engine_g.config,
                                               "D": trainer.engine_d.config})  # fmt: skip
    info, ranks, t = trainer.reader.info, trainer.ranks, trainer.t
    device: Device = "cuda" if trainer.device.type == "cuda" else "cpu"
    count = {name: sum(p.numel() for p in network.parameters())
             for name, network in (("G", trainer.G), ("D", trainer.D))}  # fmt: skip
    run.log(
        f"{run.folder.name}: {len(trainer.reader)} images {len(info.channels)} x"
        f" {info.resolution} x {info.resolution}, G {count['G'] / 1e6:.2f} M,"
        f" D {count['D'] / 1e6:.2f} M parameters, {ranks.world} rank(s) ({ranks.source}),"
        f" {trainer.device.type}, ZeRO-{t.zero.stage}"
        f"{' with CPU offload' if t.zero.offload and t.zero.stage else ''}"
    )
    nodes = dist.node_count(ranks, os.environ)
    plan = predicted(trainer.cfg, info.resolution, len(info.channels), ranks.world, device, nodes)
    write_json(run.folder / "plan.json", {**plan, "from_nimg": trainer.nimg})
    run.log(ledger(info.resolution, len(info.channels), t, ranks.world, device).line())
    for line in layout_notes(t, trainer.local_batch // trainer.accumulate):
        run.log(f"note: {line}")
    if start is not None:
        run.log(f"resumed from {start.name}")
        return
    if trainer.warmed is not None:
        run.log(f"weights of {t.warm.run}: {trainer.warmed}")
    rows = trainer.reader.rows[sample_indices(len(trainer.reader), trainer.cfg.seed, 0, 24)]
    save_grid(trainer.reader.images(rows), info, run.folder / "images" / "reals.png", "real")
