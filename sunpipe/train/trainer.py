"""G, D, G_ema and their engines on one rank: one iteration, save, restore."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from sunpipe import checkpoint, dist
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.run import Run
from sunpipe.settings import Config
from sunpipe.shards.loader import Loader, to_physical
from sunpipe.shards.normalize import decode, encode
from sunpipe.shards.order import generator_seed
from sunpipe.shards.reader import ShardReader
from sunpipe.train.ema import ema_beta, update_ema
from sunpipe.train.engine import Engine, average_over_ranks
from sunpipe.train.phases import DiscriminatorPhases, GeneratorPhases, mix_styles

W_AVG_BETA = 0.995


class Trainer:
    """G, D, G_ema and their engines, on one rank."""

    def __init__(
        self, cfg: Config, reader: ShardReader, ranks: dist.Ranks, device: torch.device,
        start: Path | None,
        made_of: dict[str, Any],
    ) -> None:  # fmt: skip
        self.cfg, self.t, self.reader, self.ranks = cfg, cfg.train, reader, ranks
        self.device, self.nimg, self.made_of = device, 0, made_of
        self.local_batch = self.t.batch // ranks.world
        info = reader.info
        torch.manual_seed(generator_seed(cfg.seed, 0, 0, "init"))
        self.G = Generator(info.resolution, len(info.channels), self.t.model).to(device)
        self.D = Discriminator(info.resolution, len(info.channels), self.t.model).to(device)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        g_phases = GeneratorPhases(self.G, self.D, self.t).to(device)
        d_phases = DiscriminatorPhases(self.D, self.t)
        if start is not None:
            state = checkpoint.load_state(start)
            checkpoint.check_made_of(start, state, made_of)
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

    def batches(self) -> Loader:
        """Real images of this rank from here on, read ahead."""
        return Loader(
            self.reader, self.cfg.seed, self.nimg, self.t.batch, rank=self.ranks.rank,
            world=self.ranks.world, pin=self.device.type == "cuda",
        )  # fmt: skip

    def iterate(self, stored: torch.Tensor) -> dict[str, torch.Tensor]:
        """One iteration on `batch` images: G, path length, D, R1, averages.

        Parameters
        ----------
        stored : Tensor, shape (batch / ranks, C, H, H)
            Real images as the shards hold them, from `batches`.
        """
        fields = to_physical(stored.to(self.device, non_blocking=True), self.reader.info.scale)
        real = encode(fields, self.t.normalize)
        t, step = self.t, self.nimg // self.t.batch
        seen: dict[str, torch.Tensor] = {}
        self.D.requires_grad_(False)
        self._seed("G")
        seen |= self.engine_g.step("main", [self._latents(self.local_batch)])
        if t.pl_weight > 0 and step % t.pl_interval == 0:
            self._seed("path")
            small = max(self.local_batch // t.pl_batch_shrink, 1)
            seen |= self.engine_g.step("path", [self._latents(small)])
            average_over_ranks(seen["pl_mean"], self.ranks)
            self.g_phases.pl_mean.copy_(seen["pl_mean"])
        self.D.requires_grad_(True)
        self._seed("D")
        z, z2 = self._latents(self.local_batch)
        fake = self._fake(z, z2)
        seen |= self.engine_d.step("main", [(real, fake)])
        if t.r1_gamma > 0 and step % t.r1_interval == 0:
            self._seed("r1")
            seen |= self.engine_d.step("r1", [(real,)])
        self.nimg += t.batch
        w_mean = average_over_ranks(seen.pop("w_mean"), self.ranks)
        self.G.mapping.w_avg.lerp_(w_mean, 1 - W_AVG_BETA)
        update_ema(self.G_ema, self.G, ema_beta(t.batch, self.nimg, t.ema_kimg, t.ema_rampup))
        return seen

    @torch.no_grad()
    def _fake(self, z: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
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
            {"pl_mean": float(self.g_phases.pl_mean), "world": self.ranks.world,
             "made_of": self.made_of},
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
