"""Training StyleGAN2: one loop, clocked in images, resumed exactly.

Everything random is a pure function of (seed, rank, nimg, phase) and the order
of samples of (seed, nimg), so that a resume needs no random state.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe import checkpoint, dist
from sunpipe.config import to_dict
from sunpipe.errors import DataError, Stopped, UsageError
from sunpipe.files import write_json
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.paths import Layout
from sunpipe.run import Run, read_stats
from sunpipe.settings import Config
from sunpipe.shards.normalize import decode, encode
from sunpipe.shards.order import generator_seed, sample_indices
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id
from sunpipe.stop import StopFlag, requeue
from sunpipe.train.ema import ema_beta, update_ema
from sunpipe.train.engine import Engine, any_rank, average_over_ranks, from_main, initialize
from sunpipe.train.phases import DiscriminatorPhases, GeneratorPhases
from sunpipe.train.sinks import TensorboardSink, save_grid

FREE_KEYS = frozenset(
    f"train.{key}"
    for key in ("kimg", "tick_kimg", "checkpoint_kimg", "image_kimg", "keep_checkpoints",
                "zero.stage", "zero.offload")
)  # fmt: skip
W_AVG_BETA = 0.995


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


class Trainer:
    """G, D, G_ema and their engines, on one rank."""

    def __init__(
        self, cfg: Config, reader: ShardReader, ranks: dist.Ranks, device: torch.device,
        start: Path | None,
    ) -> None:  # fmt: skip
        self.cfg, self.t, self.reader, self.ranks = cfg, cfg.train, reader, ranks
        self.device, self.nimg = device, 0
        self.local_batch = self.t.batch // ranks.world
        info = reader.info
        torch.manual_seed(generator_seed(cfg.seed, 0, 0, "init"))
        self.G = Generator(info.resolution, len(info.channels), self.t.model).to(device)
        self.D = Discriminator(info.resolution, len(info.channels), self.t.model).to(device)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        g_phases = GeneratorPhases(self.G, self.D, self.t).to(device)
        d_phases = DiscriminatorPhases(self.D, self.t)
        state: dict[str, Any] = {}
        if start is not None:
            state = checkpoint.load_state(start)
            self.nimg = state["nimg"]
            for name, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema)):
                network.load_state_dict(checkpoint.load_tensors(start, name))
            g_phases.pl_mean.fill_(state["pl_mean"])
        self.g_phases = g_phases
        self.engine_g = self._engine(g_phases, self.t.lr_g, self.t.pl_interval)
        self.engine_d = self._engine(d_phases, self.t.lr_d, self.t.r1_interval)
        if start is not None:
            self.engine_g.load_optimizer_state(checkpoint.load_tensors(start, "zero/G"))
            self.engine_d.load_optimizer_state(checkpoint.load_tensors(start, "zero/D"))

    def _engine(self, phases: torch.nn.Module, lr: float, interval: int) -> Engine:
        # A lazy penalty every `interval` steps adds steps: arXiv:1912.04958, appendix B.
        ratio = interval / (interval + 1)
        return Engine(
            phases, lr=lr * ratio, beta2=0.99**ratio, zero=self.t.zero,
            micro_batch=self.local_batch, ranks=self.ranks,
        )  # fmt: skip

    def _seed(self, purpose: str) -> None:
        torch.manual_seed(generator_seed(self.cfg.seed, self.ranks.rank, self.nimg, purpose))

    def _latents(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        z = torch.randn(2 * count, self.t.model.z_dim).to(self.device)
        return z[:count], z[count:]

    def next_batch(self) -> torch.Tensor:
        """Real images of this rank for the current `nimg`, in network range."""
        places = sample_indices(len(self.reader), self.cfg.seed, self.nimg, self.t.batch)
        mine = self.reader.rows[places[self.ranks.rank :: self.ranks.world]]
        fields = torch.from_numpy(self.reader.images(mine)).to(self.device)
        return encode(fields, self.t.normalize)

    def iterate(self, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """One iteration on `batch` images: G, path length, D, R1, averages."""
        t, step = self.t, self.nimg // self.t.batch
        seen: dict[str, torch.Tensor] = {}
        self.D.requires_grad_(False)
        self._seed("G")
        seen |= self.engine_g.step("main", *self._latents(self.local_batch))
        if t.pl_weight > 0 and step % t.pl_interval == 0:
            self._seed("path")
            small = max(self.local_batch // t.pl_batch_shrink, 1)
            seen |= self.engine_g.step("path", *self._latents(small))
            average_over_ranks(seen["pl_mean"], self.ranks)
            self.g_phases.pl_mean.copy_(seen["pl_mean"])
        self.D.requires_grad_(True)
        self._seed("D")
        z, z2 = self._latents(self.local_batch)
        fake = self._fake(z, z2)
        seen |= self.engine_d.step("main", real, fake)
        if t.r1_gamma > 0 and step % t.r1_interval == 0:
            self._seed("r1")
            seen |= self.engine_d.step("r1", real)
        self.nimg += t.batch
        w_mean = average_over_ranks(seen.pop("w_mean"), self.ranks)
        self.G.mapping.w_avg.lerp_(w_mean, 1 - W_AVG_BETA)
        update_ema(self.G_ema, self.G, ema_beta(t.batch, self.nimg, t.ema_kimg, t.ema_rampup))
        return seen

    @torch.no_grad()
    def _fake(self, z: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
        from sunpipe.train.phases import mix_styles

        return self.G.synthesis(mix_styles(self.G, z, z2, self.t.style_mixing))

    def save(self, run: Run | None) -> None:
        """Write a checkpoint; every rank calls it, rank 0 writes."""
        zero = {
            "zero/G": self.engine_g.optimizer_state(),
            "zero/D": self.engine_d.optimizer_state(),
        }
        if run is None:
            return
        networks = {"G": self.G, "D": self.D, "G_ema": self.G_ema}
        tensors = {name: network.state_dict() for name, network in networks.items()}
        path = checkpoint.save(
            run.folder / "checkpoints", self.nimg, {**tensors, **zero},
            {"pl_mean": float(self.g_phases.pl_mean), "world": self.ranks.world},
            keep=self.t.keep_checkpoints,
        )  # fmt: skip
        run.log(f"checkpoint {path.name}")

    @torch.no_grad()
    def grid(self, count: int = 24) -> Any:
        """Fields in physical units from fixed latents of G_ema, (count, C, H, H)."""
        source = torch.Generator().manual_seed(generator_seed(self.cfg.seed, 0, 0, "grid"))
        z = torch.randn(count, self.t.model.z_dim, generator=source).to(self.device)
        image = self.G_ema(z, noise="const")
        return decode(image, self.t.normalize).cpu().numpy()


def _check_batch(cfg: Config, ranks: dist.Ranks, images: int) -> None:
    if images == 0:
        raise DataError(f"dataset {cfg.dataset} has no training images; check shard.test_harps")
    if cfg.train.batch % ranks.world:
        raise UsageError(
            f"train.batch={cfg.train.batch} does not divide over {ranks.world} ranks;"
            f" use a multiple of {ranks.world}"
        )


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
    layout = Layout.current()
    reader = ShardReader(layout.shards(cfg.dataset), splits=("train",))
    _check_batch(cfg, ranks, len(reader))
    with StopFlag() as stop:
        device = initialize(ranks)
        run = None
        if ranks.is_main:
            run = Run.open(layout, cfg.name, run_config(cfg, reader), FREE_KEYS, new)
        folder = Path(from_main(str(run.folder) if run else None, ranks))
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
            _stop(run, stop, trainer.nimg, target)
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


def _stop(run: Run | None, stop: StopFlag, nimg: int, target: int) -> None:
    again = False
    if run is not None:
        again = requeue() if stop.requeue else False
        run.status("stopped", nimg=nimg, target=target, signal=stop.reason, requeued=again)
    raise Stopped(
        f"stopped by {stop.reason or 'another rank'} at {nimg / 1000:g} kimg after a checkpoint; "
        + ("Slurm starts it again" if again else "run the same command again to continue")
    )
