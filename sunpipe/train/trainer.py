"""G, D, G_ema and their engines on one rank: one iteration, save, restore."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sunpipe import checkpoint, dist
from sunpipe.models.stripes import Stripes, data_rank, data_world
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.settings import Config
from sunpipe.shards.loader import Loader, to_physical
from sunpipe.shards.normalize import decode, encode
from sunpipe.shards.order import generator_seed
from sunpipe.shards.reader import ShardReader
from sunpipe.train import ada
from sunpipe.train.chance import Chance
from sunpipe.train.ema import ema_beta, update_ema
from sunpipe.train.engine import Engine, average_over_ranks
from sunpipe.train.losses import needs_real
from sunpipe.train.means import mean_over_ranks
from sunpipe.train.phases import (
    DiscriminatorPhases,
    GeneratorPhases,
    lazy_penalty,
    lazy_ratio,
    mix_styles,
)
from sunpipe.train.progress import exchange_s
from sunpipe.train.symmetries import apply_symmetries
from sunpipe.train.warm import frozen_names, warm_start
from sunpipe.train.watch import diversity

W_AVG_BETA = 0.995
Seen = dict[str, torch.Tensor]


class Trainer:
    """G, D, G_ema and their engines, on one rank.

    Parameters
    ----------
    start : Path, optional
        Checkpoint to continue from.
    warm : Path, optional
        Checkpoint of another run to take weights from, when there is no `start`.
    made_of : dict
        What a checkpoint must agree with, see `sunpipe.run.network_identity`.

    Attributes
    ----------
    nimg : int
        Images shown so far, by all ranks.
    """

    def __init__(
        self, cfg: Config, reader: ShardReader, ranks: dist.Ranks, device: torch.device,
        start: Path | None, warm: Path | None, made_of: dict[str, Any],
    ) -> None:  # fmt: skip
        self.cfg, self.t, self.reader, self.ranks = cfg, cfg.train, reader, ranks
        self.device, self.nimg, self.made_of = device, 0, made_of
        stripes = self.t.compute.stripes
        self.data_rank = data_rank(ranks.rank, stripes)
        self.data_world = data_world(ranks.world, stripes)
        self.accumulate = self.t.compute.accumulate
        self.local_batch = self.t.batch // self.data_world
        info = reader.info
        striped = Stripes.make(ranks.world, ranks.rank, stripes,
                               exchange_s(self.t.timeout_s, self.t.hang_s))  # fmt: skip
        shape = (info.resolution, len(info.channels), self.t.model, self.t.compute, striped)
        allow = self.t.compute.precision != "fp32"
        torch.set_float32_matmul_precision("high" if allow else "highest")
        torch.backends.cudnn.allow_tf32 = allow
        torch.manual_seed(generator_seed(cfg.seed, 0, 0, "init"))
        self.G, self.D = Generator(*shape).to(device), Discriminator(*shape).to(device)
        self.warmed = warm_start({"G": self.G, "D": self.D}, warm) if warm else None
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.frozen: list[str] = []
        if warm and self.warmed:
            warm_start({"G_ema": self.G_ema}, warm)
            of = self.warmed.resolution
            copied = self.warmed.copied["D"]
            self.frozen = list(frozen_names(self.D, self.t.warm.freeze_d, of, copied=copied))
        self.g_phases = GeneratorPhases(self.G, self.D, self.t, ranks.world).to(device)
        self.d_phases = DiscriminatorPhases(self.D, self.t, ranks.world)
        self.ada = ada.start(device)
        self._lately: tuple[torch.Tensor, torch.Tensor] | None = None
        # a warm start begins with an average that is worth keeping: no ramp-up
        self.rampup = 0.0 if warm else self.t.ema_rampup
        if start is not None:
            self._restore(start)
        for name in self.frozen:
            self.D.get_parameter(name).requires_grad_(False)  # the engine leaves it alone for good
        t = self.t
        self.engine_g = self._engine(self.g_phases, t.lr_g, lazy_ratio(t.pl_weight, t.pl_interval))
        self.engine_d = self._engine(
            self.d_phases, t.lr_d, lazy_ratio(t.r1_gamma + t.r2_gamma, t.r1_interval)
        )
        if start is not None:
            self.engine_g.load_optimizer_state(checkpoint.load_tensors(start, "zero/G"))
            self.engine_d.load_optimizer_state(checkpoint.load_tensors(start, "zero/D"))

    def _restore(self, start: Path) -> None:
        state = checkpoint.load_state(start)
        checkpoint.check_made_of(start, state, self.made_of)
        self.nimg = state["nimg"]
        for name, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema)):
            network.load_state_dict(checkpoint.load_tensors(start, name))
        self.g_phases.pl_mean.fill_(state["pl_mean"])
        self.ada = ada.from_json(state["ada"], self.device)
        self.frozen, self.rampup = state["frozen"], state["ema_rampup"]

    def _engine(self, phases: torch.nn.Module, lr: float, ratio: float) -> Engine:
        return Engine(
            phases, lr=lr * ratio, beta2=0.99**ratio, zero=self.t.zero,
            micro_batch=self.local_batch // self.accumulate, accumulate=self.accumulate,
            ranks=self.ranks, skip_nonfinite=self.t.watch.nonfinite == "skip",
        )  # fmt: skip

    @property
    def samples(self) -> range:
        """Places of this rank's samples in the global batch."""
        return range(self.data_rank, self.t.batch, self.data_world)

    def _chance(self, purpose: str) -> list[Chance]:
        """Chance of each micro-batch."""
        whole = Chance.of(self.cfg.seed, self.nimg, purpose, self.samples, self.device)
        return [whole.part(m, self.accumulate) for m in range(self.accumulate)]

    def batches(self) -> Loader:
        """Real images of this rank from here on, read ahead."""
        return Loader(
            self.reader, self.cfg.seed, self.nimg, self.t.batch, rank=self.data_rank,
            world=self.data_world, pin=self.device.type == "cuda",
        )  # fmt: skip

    def _real(self, stored: torch.Tensor) -> list[torch.Tensor]:
        """Micro-batches of real images in network range."""
        info = self.reader.info
        fields = to_physical(stored.to(self.device, non_blocking=True), info.scale)
        if self.t.symmetries:
            chance = Chance.of(self.cfg.seed, self.nimg, "symmetry", self.samples, self.device)
            fields = apply_symmetries(fields, info.channels, self.t.symmetries, chance)
        real = encode(fields, self.t.normalize)
        return [real[m :: self.accumulate] for m in range(self.accumulate)]

    def iterate(self, stored: torch.Tensor) -> Seen:
        """One iteration on `batch` images: G, path length, D, R1, averages.

        Parameters
        ----------
        stored : Tensor, shape (batch / ranks, C, H, H)
            Real images as the shards hold them, from `batches`.

        Returns
        -------
        dict of str to Tensor
            What was seen, means over this rank's samples, on the device.
        """
        t, step = self.t, self.nimg // self.t.batch
        p = self.ada.p if t.ada.target else None
        real = self._real(stored)
        phases = [*self._train_g(real, step, p), *self._train_d(real, step, p)]
        seen = {key: value for one in phases for key, value in one.items()}
        if t.watch.nonfinite == "skip":
            seen["skipped"] = sum((one["skipped"] for one in phases), torch.zeros(()))
        signs = seen.pop("signs", None)
        if p is not None:
            seen["ada_p"] = p.clone()
            if signs is not None:
                signs = (signs * self.accumulate).round().long()  # of all parts
                self.ada = ada.observe(self.ada, signs, self.ranks.world)
            if (step + 1) % t.ada.interval == 0:
                self.ada = ada.adjust(self.ada, t.ada, t.batch)
        self.nimg += t.batch
        beta = ema_beta(t.batch, self.nimg, t.ema_kimg, self.rampup)
        if "w_mean" in seen:
            w_mean = average_over_ranks(seen.pop("w_mean"), self.ranks)
            self.G.mapping.w_avg.lerp_(w_mean, 1 - W_AVG_BETA)
        update_ema(self.G_ema, self.G, beta)
        return seen

    def _train_g(
        self, real: Sequence[torch.Tensor], step: int, p: torch.Tensor | None
    ) -> list[Seen]:
        t = self.t
        self.engine_d.requires_grad(False)
        compared = real if needs_real(t.loss) else [None] * self.accumulate
        parts = [(chance, r, p) for chance, r in zip(self._chance("G"), compared, strict=True)]
        seen = [self.engine_g.step("main", parts)]
        if lazy_penalty(t.pl_weight, t.pl_interval) and step % t.pl_interval == 0:
            count = self.g_phases.path_count(self.local_batch // self.accumulate)
            first = [(chance.first(count),) for chance in self._chance("path")]
            seen.append(self.engine_g.step("path", first))
        for one in seen:
            if "pl_mean" in one:  # the same on all ranks
                self.g_phases.pl_mean.copy_(one["pl_mean"])
        return seen

    def _train_d(
        self, real: Sequence[torch.Tensor], step: int, p: torch.Tensor | None
    ) -> list[Seen]:
        t = self.t
        self.engine_d.requires_grad(True)
        chances = self._chance("D")
        fake = [self._fake(chance) for chance in chances]
        self._lately = fake[0], real[0]
        parts = list(zip(real, fake, chances, [p] * self.accumulate, strict=True))
        seen = [self.engine_d.step("main", parts)]
        if lazy_penalty(t.r1_gamma + t.r2_gamma, t.r1_interval) and step % t.r1_interval == 0:
            count = self.d_phases.penalty_count(self.local_batch // self.accumulate)
            chances = [chance.first(count) for chance in self._chance("penalty")]
            few = ([images[:count] for images in some] for some in (real, fake))
            parts = list(zip(*few, chances, [p] * self.accumulate, strict=True))
            seen.append(self.engine_d.step("penalty", parts))
        return seen

    @torch.no_grad()
    def diversity(self) -> float:
        """How diverse the last generated images were, beside the real ones; see `watch.diversity`.

        Without augmentation, which would make one repeated image look like many.
        All ranks must call it.
        """
        assert self._lately is not None
        fake, real = (self.D.features(images)[1] for images in self._lately)
        return float(diversity(fake, real, partial(mean_over_ranks, world=self.ranks.world)))

    @torch.no_grad()
    def _fake(self, chance: Chance) -> torch.Tensor:
        w_plus = mix_styles(self.G, chance, self.t.style_mixing)
        return self.G.synthesis(w_plus, chance.noise("layers"))

    def state(self) -> tuple[dict[str, checkpoint.Tensors], dict[str, Any]]:
        """Tensors and JSON-able state of a checkpoint; every rank must call it."""
        tensors: dict[str, checkpoint.Tensors] = {
            "zero/G": self.engine_g.optimizer_state(),
            "zero/D": self.engine_d.optimizer_state(),
        }
        for name, network in (("G", self.G), ("D", self.D), ("G_ema", self.G_ema)):
            tensors[name] = network.state_dict()
        return tensors, {
            "pl_mean": float(self.g_phases.pl_mean), "ada": ada.to_json(self.ada),
            "frozen": self.frozen, "ema_rampup": self.rampup,
            "world": self.ranks.world, "made_of": self.made_of,
        }  # fmt: skip

    @torch.no_grad()
    def fields(self, purpose: str, samples: Sequence[int], side: int | None = None) -> torch.Tensor:
        """Fields of G_ema in physical units from fixed latents, a pass at a time.

        Every rank of a group of stripes must call it.

        Parameters
        ----------
        side : int, optional
            Means over whole blocks of pixels, so that images are no larger than this.

        Returns
        -------
        Tensor, (N, C, H, H), on the CPU
        """
        parts, batch = [], max(self.local_batch // self.accumulate, 1)
        for first in range(0, len(samples), batch):
            here = samples[first : first + batch]
            chance = Chance.of(self.cfg.seed, 0, purpose, here, self.device)
            image = self.G_ema(chance.normal("z", self.t.model.z_dim), noise="const")
            field = decode(image, self.t.normalize)
            factor = 1 if side is None else -(-field.shape[-1] // side)
            parts.append((F.avg_pool2d(field, factor) if factor > 1 else field).cpu())
        return torch.cat(parts)
