"""``sunpipe ssl``: an encoder from the training split of the shards, on any number of ranks.

Everything random is a pure function of (seed, images shown, purpose, sample): a
run that is stopped and continued ends with the same bits, one that continues at
another number of ranks within rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe import checkpoint
from sunpipe.config import to_dict
from sunpipe.dist import Ranks, discover
from sunpipe.errors import ConfigError, Stopped
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.run import Run, find_run, read_stats, ssl_name
from sunpipe.settings import Config
from sunpipe.shards.cache import node_cache
from sunpipe.shards.loader import Loader
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import read_info
from sunpipe.stage import Result, log, printable
from sunpipe.stop import StopFlag, requeue_if_progress
from sunpipe.train import record
from sunpipe.train.begin import on_main
from sunpipe.train.clock import due, peak_memory_bytes
from sunpipe.train.energy import Energy, meters_here
from sunpipe.train.engine import any_rank, average_over_ranks, from_main, initialize, leave
from sunpipe.train.guard import guarding
from sunpipe.train.late_dump import keep_late_dumps
from sunpipe.train.peers import naming_lost_peers
from sunpipe.train.progress import Progress
from sunpipe.train.shares import Shares
from sunpipe.train.sinks import open_sinks
from sunpipe.train.ssl_begin import FREE, about, check, check_views, environment_kept, judge
from sunpipe.train.ssl_methods import Seen
from sunpipe.train.ssl_norm import check_norms
from sunpipe.train.ssl_trainer import Trainer, images_to_show, make_encoder


class Tick:
    """Sums since the last line of ``stats.jsonl``; they stay on the device."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.nimg = trainer, trainer.nimg
        self.data_wait = 0.0
        self._sums: Seen = {}
        self._batches = 0

    def add(self, seen: Seen, wait: float) -> None:
        """One step."""
        self._batches += 1
        self.data_wait += wait
        for name, value in seen.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value

    def row(self, lr: float, of_ranks: dict[str, Any]) -> dict[str, Any]:
        """Means over the tick and the ranks, as one row; all ranks must call it.

        Parameters
        ----------
        of_ranks : dict
            From `Shares.end`.
        """
        trainer = self.trainer
        wait = torch.as_tensor(self.data_wait, device=trainer.device)
        sums = torch.stack([*self._sums.values(), wait * self._batches]).double() / self._batches
        means = average_over_ranks(sums, trainer.ranks).tolist()
        images = trainer.nimg - self.nimg
        return {
            "nimg": trainer.nimg,
            "kimg": trainer.nimg / 1000,
            "sec_per_kimg": 1000 * of_ranks["tick_s"] / max(images, 1),
            **dict(zip([*self._sums, "data_wait_s"], means, strict=True)),
            "lr": lr,
            "peak_memory_bytes": peak_memory_bytes(trainer.device),
            **of_ranks,
        }


def tick_line(row: dict[str, Any]) -> str:
    """One row of the statistics for people."""
    return (
        f"kimg {row['kimg']:<8g} loss {row['loss']:+.4f}  collapse {row['collapse']:.3f}"
        f"  lr {row['lr']:.2e}  sec/kimg {row['sec_per_kimg']:.2f}  wait {row['data_wait_s']:.2f} s"
    )


def _loop(
    config: Config, run: Run | None, trainer: Trainer, reader: ShardReader, stop: StopFlag,
    progress: Progress,
) -> None:  # fmt: skip
    settings, ranks = trainer.settings, trainer.ranks
    tick = Tick(trainer)
    shares = Shares(Energy(meters_here(trainer.device), ranks), ranks, trainer.device)
    with (
        open_sinks(run, config.track, printable(to_dict(config)), trainer.nimg) as sinks,
        Loader(
            reader, trainer.seed, trainer.nimg, settings.batch, rank=ranks.rank, world=ranks.world,
            masks=True, pin=trainer.device.type == "cuda",
        ) as source,
    ):  # fmt: skip
        while trainer.nimg < trainer.total:
            before, lr, asked = trainer.nimg, trainer.lr, time.perf_counter()
            progress.ready()
            batch = next(source)
            progress.fed()
            wait = time.perf_counter() - asked
            tick.add(trainer.step(batch.images, batch.masks), wait)
            stopping = any_rank(bool(stop), ranks)
            end = trainer.nimg >= trainer.total
            if end or stopping or due(before, trainer.nimg, settings.tick_kimg):
                row = tick.row(lr, shares.end(tick.data_wait))
                if run is not None:
                    told = {k: None if isinstance(v, float) and not math.isfinite(v) else v
                            for k, v in row.items()}  # fmt: skip
                    run.stats(told)
                    sinks.add(told)
                    record.add_tick(run, row)
                    run.log(tick_line(row))
                    record.tell(run, "running", nimg=trainer.nimg, target=trainer.total)
                judge(row, trainer.total, settings.collapsed)  # all ranks decide alike
                tick = Tick(trainer)
            progress.stepped()
            if end or stopping or due(before, trainer.nimg, settings.checkpoint_kimg):
                with progress.during("a checkpoint"):
                    _save(run, trainer)
            if stopping and not end:
                with progress.during("stopping"):  # Slurm is asked, and may not answer at once
                    _stop(run, trainer, stop)


def _save(run: Run | None, trainer: Trainer) -> None:
    tensors, state = trainer.state()

    def write() -> None:
        assert run is not None
        folder, keep = run.folder / "checkpoints", trainer.settings.keep_checkpoints
        checkpoint.save(folder, trainer.nimg, tensors, state, keep, run.log)

    on_main(write, trainer.ranks)


def _stop(run: Run | None, trainer: Trainer, stop: StopFlag) -> None:
    # Both calls wait for all ranks: none may exit before rank 0 has saved and requeued.
    wanted, nimg = any_rank(stop.requeue, trainer.ranks) and run is not None, trainer.nimg
    again = from_main(requeue_if_progress("ssl", nimg) if wanted else False, trainer.ranks)
    if run is not None:
        record.tell(run, "stopped", nimg=nimg, target=trainer.total, signal=stop.reason,
                    requeued=again)  # fmt: skip
    raise Stopped(
        f"ssl stopped by {stop.reason or 'another rank'} at {nimg / 1000:g} kimg after a"
        " checkpoint; " + ("Slurm starts it again" if again else "run the same command again to"
                           " continue")
    )  # fmt: skip


def plan_ssl(config: Config) -> Result:
    """What `train_ssl` would do."""
    found = find_run(Layout.current(), ssl_name(config.name))
    info = read_info(Layout.current().shards(config.dataset))
    check_views(info, config.ssl)
    encoder = make_encoder(info, config.ssl)
    return {
        "run": str(found) if found else f"a new {ssl_name(config.name)}",
        "images": images_to_show(config.ssl),
        "train_rows": info.counts.get("train"),
        "method": config.ssl.method,
        "backbone": config.ssl.backbone,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "dim": encoder.dim,
    }


def check_network(
    config: Config, reader: ShardReader, layout: Layout, ranks: Ranks, new: bool
) -> None:
    """Refuse a backbone, or weights to start from, that the run could not use.

    Raises
    ------
    ConfigError
        Says which, and what does.
    """
    found = None if new else find_run(layout, ssl_name(config.name))
    begun = found is not None and bool(checkpoint.complete(found / "checkpoints"))
    encoder = make_encoder(reader.info, config.ssl, fresh=not begun)
    try:
        if ranks.world > 1:
            check_norms(encoder)
    except ValueError as error:
        raise ConfigError(f"ssl.backbone={config.ssl.backbone}: {error}") from None


def _done(run: Run | None, nimg: int, total: int) -> Result | None:
    if run is None:
        return None
    rows = read_stats(run.folder)
    record.tell(run, "done", nimg=nimg, target=total)
    return {"run": str(run.folder), "state": "done", **(rows[-1] if rows else {"nimg": nimg})}


def train_ssl(config: Config, new: bool = False, stop: StopFlag | None = None) -> Result | None:
    """Train the encoder, or continue, or say that it is done.

    Parameters
    ----------
    config : Config
        `dataset`, `seed` and ``[ssl]`` decide the result.
    new : bool
        Start a new run folder.
    stop : StopFlag, optional
        Polled after every batch; by default one that signals set.

    Returns
    -------
    dict or None
        Run folder and last tick on rank 0, None elsewhere.

    Raises
    ------
    Stopped
        A signal came; everything is saved.
    DataError
        No data, unknown channels, collapse, or a run of another configuration.
    UsageError
        A batch that does not divide over the ranks.
    SunpipeError
        A rank was lost.
    """
    ranks, layout = discover(), Layout.current()
    reader = ShardReader(layout.shards(config.dataset), splits=("train",), cache=node_cache())
    check(config, ranks, reader)
    total, timeout_s = images_to_show(config.ssl), config.ssl.timeout_s
    with ExitStack() as held:
        held.enter_context(environment_kept())
        stop = held.enter_context(StopFlag() if stop is None else stop)
        device = initialize(ranks, timeout_s, config.ssl.hang_s)
        held.callback(_leave_if_alone, ranks)
        peers = held.enter_context(naming_lost_peers(ranks, timeout_s))

        def open_run() -> tuple[Run, Path | None]:
            held.enter_context(running(layout, "ssl", config.name))
            check_network(config, reader, layout, ranks, new)  # before a folder is made
            run = Run.open(layout, ssl_name(config.name), about(config, reader), FREE, new)
            checkpoint.sweep(run.folder / "checkpoints", run.log)
            record.begin(run, "ssl", ranks)
            keep_late_dumps(run.folder, run.log)
            newest = checkpoint.newest(run.folder / "checkpoints", run.log)
            record.resumes_from(run, newest)
            return run, newest

        run, newest = on_main(open_run, ranks) or (None, None)
        folder = run.folder if run else None
        where = from_main([str(path or "") for path in (newest, folder)], ranks)
        start, folder = (Path(path) if path else None for path in where)
        nimg = checkpoint.load_state(start)["nimg"] if start is not None else 0
        if nimg >= total:
            if run is not None:
                log(f"{run.folder.name} is finished at {nimg / 1000:g} kimg; nothing to do")
            return _done(run, nimg, nimg)
        with (
            _failure_in_status(run),
            guarding(ranks, run, folder, peers, config.ssl.hang_s, device) as progress,
        ):
            nimg = _train(config, reader, ranks, device, run, start, stop, progress)
    if ranks.world > 1:
        leave()
    return _done(run, nimg, total)


def _leave_if_alone(ranks: Ranks) -> None:
    """A lone process may train again, whatever ended it; ranks that part leave with an exit."""
    if ranks.world == 1:
        leave()


def _train(
    config: Config, reader: ShardReader, ranks: Ranks, device: torch.device, run: Run | None,
    start: Path | None, stop: StopFlag, progress: Progress,
) -> int:  # fmt: skip
    """Train to the end; images shown."""
    pixel_cm = float(np.median(reader.pixel_cm[reader.rows]))
    trainer = Trainer(config, reader.info, pixel_cm, ranks, device, start)
    if run is not None:
        run.rewind_stats(trainer.nimg)
        run.log(
            f"{run.folder.name}: {config.ssl.method}, {config.ssl.backbone}, {len(reader)}"
            f" patches, {trainer.nimg / 1000:g} of {trainer.total / 1000:g} kimg, {ranks.world}"
            f" rank(s) ({ranks.source}), {device.type}"
        )
        record.tell(run, "running", nimg=trainer.nimg, target=trainer.total)
    _loop(config, run, trainer, reader, stop, progress)
    return trainer.nimg


@contextmanager
def _failure_in_status(run: Run | None) -> Iterator[None]:
    """What ends a training early, other than a request, stands in ``status.json``."""
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        if run is not None:
            with suppress(OSError):  # the disk may be what failed
                record.tell(run, "failed", reason=str(error) or type(error).__name__)
        raise
