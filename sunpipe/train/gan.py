"""Training StyleGAN2: one loop, clocked in images, resumed exactly.

Everything random is a pure function of (seed, nimg, purpose, sample) and the
order of samples of (seed, nimg), so that a resume needs no random state and may
have another number of ranks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from sunpipe import checkpoint, dist
from sunpipe.checkpoint_writer import Writer
from sunpipe.config import to_dict
from sunpipe.errors import DataError, RankLost, Stopped
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.run import Run, find_run, network_identity, read_stats
from sunpipe.settings import Config
from sunpipe.shards.cache import node_cache
from sunpipe.shards.reader import ShardReader
from sunpipe.stage import log, printable
from sunpipe.stop import StopFlag, requeue_if_progress
from sunpipe.train import record
from sunpipe.train.begin import FREE_KEYS, announce, check, on_main, run_config
from sunpipe.train.clock import due, peak_memory_bytes
from sunpipe.train.energy import Energy, meters_here
from sunpipe.train.engine import any_rank, from_main, initialize
from sunpipe.train.guard import guarding
from sunpipe.train.late_dump import keep_late_dumps
from sunpipe.train.metrics import Metrics
from sunpipe.train.oom import explain_oom
from sunpipe.train.peers import naming_lost_peers
from sunpipe.train.process_group import finish
from sunpipe.train.progress import Progress
from sunpipe.train.selftest import self_test
from sunpipe.train.shares import Shares
from sunpipe.train.sinks import open_sinks, save_grid
from sunpipe.train.tick import Tick
from sunpipe.train.trainer import Trainer
from sunpipe.train.warm import find_source
from sunpipe.train.watch import warnings

GRID, GRID_SIDE = range(24), 512  # images in a grid, and pixels that are shown of each


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
    SunpipeError
        A rank was lost, or the engine's self-test failed.
    """
    ranks, layout = dist.discover(), Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",), cache=node_cache())
    check(cfg, ranks, reader)
    target = math.ceil(cfg.train.kimg * 1000 / cfg.train.batch) * cfg.train.batch
    with StopFlag() as stop, ExitStack() as held:
        device = initialize(ranks, cfg.train.timeout_s, cfg.train.hang_s)
        peers = held.enter_context(naming_lost_peers(ranks, cfg.train.timeout_s))

        def open_run() -> tuple[Run, Path | None, Path | None]:
            held.enter_context(running(layout, "train", cfg.name))
            config, source = run_config(cfg, reader), cfg.train.warm.run
            fresh = source is not None and (new or find_run(layout, cfg.name) is None)
            warm = find_source(layout, source, config, log) if source and fresh else None
            run = Run.open(layout, cfg.name, config, FREE_KEYS, new)
            checkpoint.sweep(run.folder / "checkpoints", run.log)
            record.begin(run, "train", ranks)
            keep_late_dumps(run.folder, run.log)
            newest = checkpoint.newest(run.folder / "checkpoints", run.log)
            record.resumes_from(run, newest)
            if source and newest is None and warm is None:  # it was stopped before its first save
                warm = find_source(layout, source, config, log)
            return run, newest, warm

        run, newest, source = on_main(open_run, ranks) or (None, None, None)
        folder = run.folder if run else None
        where = from_main([str(path or "") for path in (newest, source, folder)], ranks)
        start, warm, folder = (Path(path) if path else None for path in where)
        done = checkpoint.load_state(start)["nimg"] if start is not None else 0
        if done < target:
            with (
                _failure_in_status(run, cfg, ranks),
                guarding(ranks, run, folder, peers, cfg.train.hang_s, device) as progress,
            ):
                self_test(cfg.train, ranks, device)
                made_of = network_identity(run_config(cfg, reader))
                source = None if start else warm
                trainer = Trainer(cfg, reader, ranks, device, start, source, made_of)
                if run is not None:
                    announce(run, trainer, start)
                _loop(trainer, run, stop, target, progress)
            done = trainer.nimg
        result = _finished(run, done)
    finish()
    return result


@contextmanager
def _failure_in_status(run: Run | None, cfg: Config, ranks: dist.Ranks) -> Iterator[None]:
    """What ends a training other than a request stands in ``status.json``."""
    try:
        yield
    except Stopped:
        raise
    except BaseException as error:
        said: BaseException = error
        if isinstance(error, torch.OutOfMemoryError):
            said = explain_oom(error, cfg.train, ranks.world)
        elif isinstance(error, torch.AcceleratorError):
            said = RankLost(f"the GPU of rank {ranks.rank} failed: {str(error).splitlines()[0]}")
        if run is not None:
            with suppress(OSError):  # the disk may be what failed
                record.tell(run, "failed", reason=str(said) or type(said).__name__)
        if said is not error:
            raise said from None
        raise


def _finished(run: Run | None, nimg: int) -> dict[str, Any] | None:
    if run is None:
        return None
    rows = read_stats(run.folder)
    record.tell(run, "done", nimg=nimg)
    return {"run": str(run.folder), "state": "done", **(rows[-1] if rows else {"nimg": nimg})}


class _Books:
    """What rank 0 writes while the training runs; other ranks hold an empty one."""

    def __init__(self, trainer: Trainer, run: Run | None, held: ExitStack) -> None:
        self.run = run
        self.writer: Writer | None = None
        if run is not None:
            keep = trainer.t.keep_checkpoints
            self.writer = held.enter_context(Writer(run.folder / "checkpoints", keep, run.log))
        shown = printable(to_dict(trainer.cfg))
        self.sinks = held.enter_context(open_sinks(run, trainer.cfg.track, shown, trainer.nimg))

    def check(self) -> None:
        """Raise what stopped the last checkpoint."""
        if self.writer is not None:
            self.writer.check()


def _loop(
    trainer: Trainer, run: Run | None, stop: StopFlag, target: int, progress: Progress
) -> None:
    t, ranks = trainer.t, trainer.ranks
    if run:
        record.tell(run, "running", nimg=trainer.nimg, target=target)
    energy = Energy(meters_here(trainer.device), ranks)
    with ExitStack() as held:
        books = _Books(trainer, run, held)
        metrics = Metrics(trainer, run, progress.alive) if t.metrics.kimg else None
        # it was stopped between a checkpoint and its metrics
        if metrics and metrics.lacks_row() and (row := metrics.measure()):
            books.sinks.add(row)
        batches = held.enter_context(trainer.batches())
        tick = Tick(trainer.nimg, trainer.device)
        shares = Shares(energy, ranks, trainer.device)
        while trainer.nimg < target:
            before, asked = trainer.nimg, time.perf_counter()
            progress.ready()
            stored = next(batches).images
            progress.fed()
            tick.data_wait += time.perf_counter() - asked
            tick.add(trainer.iterate(stored))
            stopping = any_rank(bool(stop), ranks)
            end = trainer.nimg >= target
            ticks, saves, draws = (
                end or stopping or due(before, trainer.nimg, every)
                for every in (t.tick_kimg, t.checkpoint_kimg, t.image_kimg)
            )
            if ticks or saves or draws:
                seen = _judge(tick, trainer, run)
                if ticks:
                    seen["diversity"] = trainer.diversity()
                    _report(trainer, books, tick, seen, shares.end(tick.data_wait), target)
                    tick = tick.next(trainer.nimg)
            progress.stepped()
            if saves or ticks:
                on_main(books.check, ranks)  # a full disk is not left for the next checkpoint
            # a run that may be diverging does not push good checkpoints out
            if saves and (end or stopping or not seen["nonfinite_now"]):
                with progress.during("a checkpoint"):
                    _save(trainer, books, wait=end or stopping)
            if draws and trainer.data_rank == 0:  # stripes of one image draw it together
                with progress.during("images"):
                    _draw(trainer, books)
            if metrics and not stopping and (end or due(before, trainer.nimg, t.metrics.kimg)):
                with progress.during("metrics"):
                    if row := metrics.measure():
                        books.sinks.add(row)
            if stopping and not end:
                with progress.during("stopping"):  # Slurm is asked, and may not answer at once
                    _stop(trainer, run, stop, target)


def _draw(trainer: Trainer, books: _Books) -> None:
    """A grid of generated images; every rank of the first group of stripes must call it."""
    fields = trainer.fields("grid", GRID, GRID_SIDE).numpy()
    if books.run:
        name = f"fakes-{checkpoint.folder_name(trainer.nimg)}.png"
        path = books.run.folder / "images" / name
        title = f"generated, {trainer.nimg / 1000:g} kimg"
        save_grid(fields, trainer.reader.info, path, title)
        books.sinks.image(trainer.nimg, path)


def _judge(tick: Tick, trainer: Trainer, run: Run | None) -> dict[str, float]:
    """Means of the tick; a training that only makes numbers that are not finite ends here.

    All ranks decide alike, and nothing of such a step is saved.
    """
    seen, watch = tick.means(trainer.ranks), trainer.t.watch
    allowed = watch.max_skips if watch.nonfinite == "skip" else 0
    if (count := int(seen["nonfinite_in_a_row"])) > allowed:
        if run is not None and watch.nonfinite == "stop":
            run.facts["nonfinite"] += count
        raise DataError(
            f"losses were not finite, {count} iterations in a row before"
            f" {trainer.nimg / 1000:g} kimg; the last checkpoint is from before that."
            " Lower the learning rates or raise r1_gamma, and start with --new"
        )
    return seen


def _report(
    trainer: Trainer, books: _Books, tick: Tick, seen: dict[str, float],
    of_ranks: dict[str, Any], target: int,
) -> None:  # fmt: skip
    run = books.run
    if run is None:
        return
    kimg = max(trainer.nimg - tick.nimg, 1) / 1000
    row = {
        "nimg": trainer.nimg, "kimg": trainer.nimg / 1000,
        "sec_per_kimg": of_ranks["tick_s"] / kimg,
        "loss_G": math.nan, "loss_D": math.nan,  # when every step of the tick was left out
        **{key: value for key, value in seen.items() if not key.startswith("nonfinite")},
        "peak_memory_bytes": peak_memory_bytes(trainer.device),
    }  # fmt: skip
    told = {key: value if math.isfinite(value) else None for key, value in row.items()} | of_ranks
    run.stats(told)
    record.add_tick(run, told)
    # a loss that is not finite was left out, or has ended the run before this line
    judged = {key: value for key, value in row.items()
              if math.isfinite(value) or key == "diversity"}  # fmt: skip
    warned = warnings(judged, trainer.t.watch)
    record.tell(run, "running", nimg=trainer.nimg, target=target, warnings=warned)
    eta = (target - trainer.nimg) / 1000 * row["sec_per_kimg"]
    run.log(
        f"kimg {row['kimg']:.3f}/{target / 1000:g}  s/kimg {row['sec_per_kimg']:.2f}"
        f"  G {row['loss_G']:.3f}  D {row['loss_D']:.3f}"
        f"  data wait {row['data_wait_s']:.2f} s"
        f"  memory {row['peak_memory_bytes'] / 2**30:.2f} GiB  ETA {eta / 60:.1f} min"
    )
    for line in warned:
        run.log(f"warning: {line}")
    books.sinks.add(told)


def _save(trainer: Trainer, books: _Books, wait: bool) -> None:
    tensors, state = trainer.state()

    def write() -> None:
        assert books.writer is not None
        books.writer.save(trainer.nimg, tensors, state)
        if wait:
            books.writer.wait()

    on_main(write, trainer.ranks)


def _stop(trainer: Trainer, run: Run | None, stop: StopFlag, target: int) -> None:
    # Both calls wait for all ranks: none may exit before rank 0 has saved and requeued,
    # because a launcher may kill the others when one ends with an exit code.
    wanted, nimg = any_rank(stop.requeue, trainer.ranks) and run is not None, trainer.nimg
    again = from_main(requeue_if_progress("train", nimg) if wanted else False, trainer.ranks)
    if run is not None:
        record.tell(run, "stopped", nimg=nimg, target=target, signal=stop.reason, requeued=again)
    raise Stopped(
        f"stopped by {stop.reason or 'another rank'} at {nimg / 1000:g} kimg after a checkpoint; "
        + ("Slurm starts it again" if again else "run the same command again to continue")
    )
