"""Two steps of a toy G and D through DeepSpeed and through plain PyTorch, at the start of a run.

DeepSpeed with two networks and gradients of gradients has failed in silence
before: clipped gradients, buckets of the wrong network, accumulated penalties.
So the stage that a run asks for is tried with the run's own phases on 16 x 16
pixels, and compared with torch's Adam on gradients averaged over passes and ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.dist import Ranks
from sunpipe.errors import SunpipeError, UsageError
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.chance import Chance
from sunpipe.train.engine import STAGE_3, Engine
from sunpipe.train.exchanges import is_exchange, reason
from sunpipe.train.phases import DiscriminatorPhases, GeneratorPhases, lazy_penalty, mix_styles
from sunpipe.train.process_group import average_over_ranks
from sunpipe.train_settings import TrainSettings, ZeroSettings

TOLERANCE = 1e-5  # of a weight, float32; weights are of the order of one
SIZE, CHANNELS, SAMPLES, STEPS = 16, 2, 2, 2  # samples of one pass of one rank
LR, BETA2 = 0.02, 0.99
# Adam with its usual 1e-8 moves a weight as far whatever the scale of the gradients: a sum in
# place of a mean, or clipping, would go unseen, and rounding would be enlarged.
EPS = 0.1
TITLE = "self-test of DeepSpeed"


class Stepper(Protocol):
    """What makes an update from the passes of a phase."""

    def step(self, phase: str, parts: list[tuple[Any, ...]]) -> Any:
        """One update."""

    def requires_grad(self, needed: bool) -> None:
        """Let gradients reach the trained parameters or not."""


class Plain:
    """The reference: torch's Adam on gradients averaged over passes and ranks."""

    def __init__(self, phases: nn.Module, ranks: Ranks) -> None:
        self.phases, self.ranks = phases, ranks
        self.adam = torch.optim.Adam(phases.parameters(), lr=LR, betas=(0.0, BETA2), eps=EPS)

    def requires_grad(self, needed: bool) -> None:
        """Let gradients reach the parameters or not."""
        self.phases.requires_grad_(needed)

    def step(self, phase: str, parts: list[tuple[Any, ...]]) -> None:
        """One update."""
        self.adam.zero_grad()
        for part in parts:
            loss, _ = self.phases(phase, *part)
            (loss / len(parts)).backward()
        for parameter in self.phases.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            average_over_ranks(parameter.grad, self.ranks)
        self.adam.step()


@dataclass(frozen=True)
class Toy:
    """A pair of small networks and the settings of their phases."""

    train: TrainSettings
    generator: Generator
    discriminator: Discriminator

    def phases(self, world: int) -> tuple[GeneratorPhases, DiscriminatorPhases]:
        """The run's own losses around the small networks."""
        device = next(self.generator.parameters()).device
        g = GeneratorPhases(self.generator, self.discriminator, self.train, world)
        return g.to(device), DiscriminatorPhases(self.discriminator, self.train, world)

    def parameters(self) -> list[torch.Tensor]:
        """All weights, without their graphs."""
        return [p.detach() for net in (self.generator, self.discriminator)
                for p in net.parameters()]  # fmt: skip


def toy(settings: TrainSettings, device: torch.device) -> Toy:
    """Small networks with everything of `settings` that decides what a step does."""
    model = replace(settings.model, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64,
                    channel_max=4, channel_min=1)  # fmt: skip
    compute = replace(settings.compute, precision="fp32", stripes=1, checkpoint_from=8,
                      accumulate=min(settings.compute.accumulate, 3))  # fmt: skip
    shape = (SIZE, CHANNELS, model, compute)
    generator, discriminator = Generator(*shape).to(device), Discriminator(*shape).to(device)
    return Toy(replace(settings, model=model, compute=compute), generator, discriminator)


def play(small: Toy, g: Stepper, d: Stepper, ranks: Ranks, device: torch.device) -> None:
    """Two iterations with every phase that the run has; the lazy ones are due in both."""
    t, passes = small.train, small.train.compute.accumulate
    count = SAMPLES * passes * ranks.world

    def chances(purpose: str, number: int) -> list[Chance]:
        samples = range(ranks.rank, count, ranks.world)
        whole = Chance.of(0, number, purpose, samples, device)
        return [whole.part(m, passes) for m in range(passes)]

    for number in range(STEPS):
        real = [c.maps("real", CHANNELS, SIZE, SIZE) for c in chances("real", number)]
        d.requires_grad(False)
        g.step("main", [(c, r, None) for c, r in zip(chances("G", number), real, strict=True)])
        if lazy_penalty(t.pl_weight, t.pl_interval):
            g.step("path", [(c,) for c in chances("path", number)])
        d.requires_grad(True)
        mixed = chances("D", number)
        with torch.no_grad():
            fake = [small.generator.synthesis(mix_styles(small.generator, c, t.style_mixing),
                                              c.noise("layers")) for c in mixed]  # fmt: skip
        parts = [(r, f, c, None) for r, f, c in zip(real, fake, mixed, strict=True)]
        d.step("main", parts)
        if lazy_penalty(t.r1_gamma + t.r2_gamma, t.r1_interval):
            d.step("penalty", parts)


def difference(ours: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """Largest difference relative to the largest value of its tensor, or to one.

    Biases start at zero: relative to what two steps make of them, the order in
    which ranks and passes are summed would count as a fault.
    """
    gaps = [
        (a - b).abs().max() / b.abs().max().clamp(min=1.0)
        for a, b in zip(ours, reference, strict=True)
    ]
    return float(torch.stack(gaps).nan_to_num(nan=float("inf")).max())


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Float32 as it is, the same kernels every time, and the random state left as it was."""
    before = torch.get_float32_matmul_precision()
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def trial(
    start: Toy, reference: Toy, zero: ZeroSettings, ranks: Ranks, device: torch.device
) -> tuple[float, str]:
    """Difference of the networks under `zero` from `reference`, and the error if one came.

    The same on all ranks: among several, an error ends the rank at once.

    Raises
    ------
    SunpipeError
        An error among several ranks. The others may wait for this one inside an
        exchange, so that it can agree on nothing with them any more.
    """
    try:
        small = copy.deepcopy(start)
        common: dict[str, Any] = {
            "lr": LR, "beta2": BETA2, "eps": EPS, "zero": zero, "micro_batch": SAMPLES,
            "accumulate": small.train.compute.accumulate, "ranks": ranks,
        }  # fmt: skip
        g, d = (Engine(phases, **common) for phases in small.phases(ranks.world))
        play(small, g, d, ranks, device)
        found = difference(small.parameters(), reference.parameters())
        for engine in (g, d):
            engine.engine.destroy()
    except (torch.OutOfMemoryError, SunpipeError):
        raise
    except Exception as error:  # whatever DeepSpeed says: the point is to learn it here
        if is_exchange(error):
            raise
        fault = f"{type(error).__name__}: {reason(error)}"
        if ranks.world == 1:
            return float("inf"), fault
        low = lower(zero)
        hint = f"; try {setting(low[0], zero)}" if low else ""
        raise SunpipeError(f"{TITLE}: {name(zero)} on rank {ranks.rank}: {fault}{hint}") from error
    worst = torch.tensor([found], device=device)
    if ranks.world > 1:
        torch_dist.all_reduce(worst, op=torch_dist.ReduceOp.MAX)
    return float(worst), ""


def lower(zero: ZeroSettings) -> list[ZeroSettings]:
    """What to try when `zero` fails: without offload, then stage by stage."""
    stages = [
        ZeroSettings(stage=stage, offload=offload)  # type: ignore[arg-type]
        for stage in range(min(zero.stage, 2), -1, -1)
        for offload in ((True, False) if zero.offload and stage else (False,))
    ]
    return [one for one in stages if one != zero]


def name(zero: ZeroSettings) -> str:
    """``stage 1 with offload``."""
    return f"stage {zero.stage}{' with offload' if zero.offload and zero.stage else ''}"


def setting(zero: ZeroSettings, asked: ZeroSettings) -> str:
    """What to write to have `zero` in place of `asked`."""
    offload = f" train.zero.offload={str(zero.offload).lower()}"
    return f"train.zero.stage={zero.stage}" + (
        offload if zero.offload != asked.offload and zero.stage else ""
    )


def self_test(settings: TrainSettings, ranks: Ranks, device: torch.device) -> float:
    """Prove that DeepSpeed, as set, makes the steps that plain PyTorch makes.

    Every rank must call it, after `initialize`. The random state is left as it was.

    Returns
    -------
    float
        The largest relative difference of a weight after two steps.

    Raises
    ------
    SunpipeError
        More than 1e-5, or an error: the stage, what was found, and the stage that works.
    """
    if settings.zero.stage == 3:
        raise UsageError(STAGE_3)
    with _exact(device):
        torch.manual_seed(0)
        start = toy(settings, device)
        reference = copy.deepcopy(start)
        g, d = (Plain(phases, ranks) for phases in reference.phases(ranks.world))
        play(reference, g, d, ranks, device)
        found, fault = trial(start, reference, settings.zero, ranks, device)
        if found <= TOLERANCE:
            return found
        what = fault or f"differs from plain PyTorch by {found:.1e}, more than {TOLERANCE:g}"
        title = f"{TITLE}: {name(settings.zero)}: {what}"
        for zero in lower(settings.zero):
            try:
                works = trial(start, reference, zero, ranks, device)[0] <= TOLERANCE
            except SunpipeError as error:
                said = str(error).removeprefix(f"{TITLE}: ")
                raise SunpipeError(
                    f"{TITLE}: {name(settings.zero)}: {what}; then {said}"
                ) from error
            if works:
                hint = f"set {setting(zero, settings.zero)}"
                break
        else:
            hint = "no lower stage works either: DeepSpeed or torch is at fault here"
    raise SunpipeError(f"{title}; {hint}")
