"""One training iteration of StyleGAN2, for the benchmarks: G, D, lazy R1 and path length."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.plain_layers import Formulation, formulation
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.ema import update_ema
from sunpipe.train.meter import PHASES, Pass, loss, networks, phase_passes
from sunpipe.train_settings import TrainSettings


@dataclass(frozen=True)
class Contender:
    """A way to compute the step."""

    name: str
    settings: TrainSettings
    layers: Formulation = "ours"
    tf32: bool = True


def weights(t: TrainSettings) -> dict[str, float]:
    """How often each phase runs in an iteration; a penalty due in every one is not a phase."""
    often = {"G main": 1.0, "path length": 1 / t.pl_interval, "D main": 1.0,
             "R1": 1 / t.r1_interval}  # fmt: skip
    return {phase: often[phase] for phase in phase_passes(t, t.batch)}


def phase_pass(phase: str, t: TrainSettings) -> Pass:
    """One pass of a phase, with its images."""
    return phase_passes(t, t.batch // t.compute.accumulate)[phase]


class Step:
    """Networks, Adams and EMA of a contender, and its phases."""

    def __init__(
        self, contender: Contender, resolution: int, channels: int, device: torch.device
    ) -> None:
        self.contender, t = contender, contender.settings
        torch.manual_seed(0)
        self.g = Generator(resolution, channels, t.model, t.compute).to(device)
        self.d = Discriminator(resolution, channels, t.model, t.compute).to(device)
        self.kept = copy.deepcopy(self.g).requires_grad_(False)
        self.adams = {
            net: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.99))
            for net in (self.g, self.d)
        }
        self.real = torch.randn(t.batch, channels, resolution, resolution, device=device)
        self.device = device

    def run(self, phase: str) -> float:
        """One phase with its update; the loss. For D, images are generated too."""
        t = self.contender.settings
        net = self.g if phase in PHASES[:2] else self.d
        self.g.requires_grad_(net is self.g)
        self.d.requires_grad_(net is self.d)
        what, total = phase_pass(phase, t), torch.zeros((), device=self.device)
        count = what.samples
        torch.backends.cuda.matmul.allow_tf32 = self.contender.tf32
        torch.backends.cudnn.allow_tf32 = self.contender.tf32
        with formulation(self.contender.layers):
            for part in range(t.compute.accumulate):
                z = torch.randn(count, t.model.z_dim, device=self.device)
                if phase == "D main":
                    with torch.no_grad():
                        self.g(z)
                real = self.real[part * count : (part + 1) * count]
                found = loss(what, self.g, self.d, z, real)
                (found / t.compute.accumulate).backward()
                total += found.detach()
            self.adams[net].step()
            self.adams[net].zero_grad(set_to_none=True)
            if phase == "G main":
                update_ema(self.kept, self.g, 0.999)
        return float(total)

    def seconds(self, phase: str, clock: Callable[[], float] = time.process_time) -> float:
        """Time of one phase."""
        self._wait()
        start = clock()
        self.run(phase)
        self._wait()
        return clock() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Flops(TorchDispatchMode):
    """Operations of convolutions and matrix products by torch's formulas.

    ``FlopCounterMode`` tracks modules by hooks that ``torch.autograd.grad`` refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def step_flops(resolution: int, channels: int, t: TrainSettings) -> float:
    """Floating point operations of the mean iteration: convolutions and matrix products.

    Counted on the meta device, nothing computed twice. A multiply and an add are
    two operations.
    """
    g, d = networks(resolution, channels, t.model, t.compute)
    total = 0.0
    for phase, often in weights(t).items():
        trained = g if phase in PHASES[:2] else d
        g.requires_grad_(trained is g)
        d.requires_grad_(trained is d)
        what = dataclasses.replace(phase_pass(phase, t), policy=(), adaptive=False)
        count = what.samples
        z = torch.empty(count, t.model.z_dim, device="meta")
        images = torch.empty(count, channels, resolution, resolution, device="meta")
        with Flops() as counter:
            for _ in range(t.compute.accumulate):
                if phase == "D main":
                    with torch.no_grad():
                        g(z)
                loss(what, g, d, z, images).backward()
        total += often * counter.total
        for parameter in trained.parameters():
            parameter.grad = None
    return total


def matmul_rate(
    dtype: torch.dtype, device: torch.device, size: int,
    clock: Callable[[], float] = time.process_time,
) -> float:  # fmt: skip
    """Operations per second of one product of square matrices."""
    a = torch.randn(size, size, device=device).to(dtype)
    a @ a
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start, repeats = clock(), 0
    while clock() - start < 0.3:
        a @ a
        repeats += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return repeats * 2 * size**3 / (clock() - start)
