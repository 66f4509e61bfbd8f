"""One rank of the engine tests: DeepSpeed phases against plain PyTorch, same seeds.

Run by tests/integration/test_engine.py with the torchrun variables set and a JSON
list of cases: ``equal`` prints the largest relative difference of any parameter
after six iterations, ``resume`` continues from files of any number of ranks.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as torch_dist
from safetensors.torch import load_file, save_file

from sunpipe import dist
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.chance import Chance
from sunpipe.train.engine import Engine, initialize
from sunpipe.train.phases import DiscriminatorPhases, GeneratorPhases
from sunpipe.train_settings import ModelSettings, TrainSettings, ZeroSettings

BATCH = 8  # of all ranks together
MODEL = ModelSettings(
    z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=8, mbstd_group=1
)
Parts = list[tuple[Any, ...]]


class Plain:
    """The reference: torch's Adam on gradients averaged over parts and ranks."""

    def __init__(self, phases: torch.nn.Module, lr: float, world: int) -> None:
        self.phases, self.world = phases, world
        self.trained = [p for p in phases.parameters() if p.requires_grad]
        self.adam = torch.optim.Adam(self.trained, lr=lr, betas=(0.0, 0.99), eps=1e-8)

    def requires_grad(self, needed: bool) -> None:
        for parameter in self.trained:
            parameter.requires_grad_(needed)

    def step(self, phase: str, parts: Parts) -> None:
        self.adam.zero_grad()
        for part in parts:
            loss, _ = self.phases(phase, *part)
            (loss / len(parts)).backward()
        for parameter in self.trained:
            # a flat partition has no missing gradients: they are zero
            gradient = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
            if self.world > 1:
                torch_dist.all_reduce(parameter.grad)
                parameter.grad /= self.world
        self.adam.step()


def split(tensors: tuple[torch.Tensor, ...], ranks: dist.Ranks, accumulate: int) -> Parts:
    """A rank's part of the global batch, then its passes."""
    local = [tensor[ranks.rank :: ranks.world] for tensor in tensors]
    return [tuple(tensor[m::accumulate] for tensor in local) for m in range(accumulate)]


def chances(number: int, purpose: str, ranks: dist.Ranks, accumulate: int) -> list[Chance]:
    """Chance of each pass of a rank."""
    samples = range(ranks.rank, BATCH, ranks.world)
    whole = Chance.of(0, number, purpose, samples, torch.device("cpu"))
    return [whole.part(m, accumulate) for m in range(accumulate)]


def iterate(
    g: Any, d: Any, generator: Generator, ranks: dist.Ranks, accumulate: int, numbers: range
) -> None:
    """Iterations of a GAN; the numbers of a batch do not depend on the ranks."""
    for number in numbers:
        torch.manual_seed(number)
        reals = [part[0] for part in split((torch.randn(BATCH, 3, 16, 16),), ranks, accumulate)]
        d.requires_grad(False)
        g.step("main", [(c, None, None) for c in chances(number, "G", ranks, accumulate)])
        if number % 2 == 0:
            g.step("path", [(c,) for c in chances(number, "path", ranks, accumulate)])
        d.requires_grad(True)
        parts = []
        for chance, real in zip(chances(number, "D", ranks, accumulate), reals, strict=True):
            with torch.no_grad():
                fake = generator(chance.normal("z", 16), noise="none")
            parts.append((real, fake, chance, None))
        d.step("main", parts)
        if number % 3 == 0:
            d.step("penalty", parts)


def moment_error(engine: Engine, plain: Plain) -> float:
    """Largest relative difference of the named moments; infinite if the step counts differ."""
    state, worst = engine.optimizer_state(), 0.0
    for name, parameter in plain.phases.named_parameters():
        if not parameter.requires_grad:
            continue
        entry = plain.adam.state[parameter]
        if float(entry["step"]) != float(state["step"]):
            return float("inf")
        for key in ("exp_avg", "exp_avg_sq"):
            scale = float(entry[key].abs().max()) or 1.0
            worst = max(worst, float((state[f"{key}/{name}"] - entry[key]).abs().max()) / scale)
    return worst


def restores(engine: Engine, network: Discriminator, cfg: TrainSettings, common: dict) -> bool:
    """Whether a new engine that loads the state of `engine` gives back the same state."""
    state = engine.optimizer_state()
    again = Engine(DiscriminatorPhases(network, cfg), **common)
    again.load_optimizer_state(state)
    loaded = again.optimizer_state()
    return state.keys() == loaded.keys() and all(
        torch.equal(state[key], loaded[key]) for key in state
    )


def networks(freeze: int) -> tuple[Generator, Discriminator]:
    """The toy pair; the first `freeze` parameters of D are frozen for good."""
    torch.manual_seed(0)
    generator, discriminator = Generator(16, 3, MODEL), Discriminator(16, 3, MODEL)
    for parameter in list(discriminator.parameters())[:freeze]:
        parameter.requires_grad_(False)
    return generator, discriminator


def difference(ours: Any, reference: Any) -> float:
    """Largest difference of a parameter relative to the largest of its tensor."""
    return max(
        float((a - b).detach().abs().max()) / (float(b.detach().abs().max()) or 1.0)
        for a, b in zip(ours, reference, strict=True)
    )


def pair(
    zero: ZeroSettings, accumulate: int, ranks: dist.Ranks, freeze: int = 0
) -> tuple[Engine, Engine, Generator, Discriminator, dict[str, Any], TrainSettings]:
    """Both engines around the toy pair, their networks and what they were made with."""
    cfg = TrainSettings(model=MODEL, zero=zero, batch=BATCH)
    generator, discriminator = networks(freeze)
    common = {"lr": 0.002, "beta2": 0.99, "zero": zero, "accumulate": accumulate,
              "micro_batch": BATCH // ranks.world // accumulate, "ranks": ranks}  # fmt: skip
    engine_g = Engine(GeneratorPhases(generator, discriminator, cfg), **common)
    engine_d = Engine(DiscriminatorPhases(discriminator, cfg), **common)
    return engine_g, engine_d, generator, discriminator, common, cfg


def equal(ranks: dist.Ranks, stage: int, offload: bool, passes: int, freeze: int) -> dict:
    """Six iterations of the engines and of plain PyTorch."""
    zero = ZeroSettings(stage=stage, offload=offload)  # type: ignore[arg-type]
    g, d, generator, discriminator, common, cfg = pair(zero, passes, ranks, freeze)
    plain_g, plain_d = networks(freeze)
    start = copy.deepcopy([*plain_g.parameters(), *plain_d.parameters()])
    iterate(g, d, generator, ranks, passes, range(6))
    reference_g = Plain(GeneratorPhases(plain_g, plain_d, cfg), 0.002, ranks.world)
    reference_d = Plain(DiscriminatorPhases(plain_d, cfg), 0.002, ranks.world)
    iterate(reference_g, reference_d, plain_g, ranks, passes, range(6))
    ours = [*generator.parameters(), *discriminator.parameters()]
    frozen = list(zip(discriminator.parameters(), networks(0)[1].parameters(), strict=True))
    return {
        "worst": difference(ours, [*plain_g.parameters(), *plain_d.parameters()]),
        "moved": max(float((a - b).detach().abs().max()) for a, b in zip(ours, start, strict=True)),
        "frozen": all(torch.equal(a, b) for a, b in frozen[:freeze]),
        "moments": max(moment_error(g, reference_g), moment_error(d, reference_d)),
        "restored": restores(d, copy.deepcopy(discriminator), cfg, common),
    }


class Faulty(torch.nn.Module):
    """A loss that can be spoilt: in its value, or in its gradients only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.layer = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)  # odd partitions

    def forward(self, phase: str, x: torch.Tensor, fault: str) -> tuple[torch.Tensor, dict]:
        loss = self.layer(self.first(x).tanh()).square().mean() * (0.5 if phase == "half" else 1.0)
        if fault == "loss":
            loss = loss * float("nan")
        if fault == "gradient":  # finite, with a derivative that is not: the root at zero
            loss = loss + self.layer.weight.sub(self.layer.weight.detach()).abs().sum().sqrt()
        return loss, {"loss": loss.detach()}


def skip(ranks: dist.Ranks, stage: int, offload: bool, fault: str) -> dict:
    """Steps of two parts: the last rank's first part is spoilt in the second step."""
    zero = ZeroSettings(stage=stage, offload=offload)  # type: ignore[arg-type]
    ours, plain = Faulty(), Faulty()
    engine = Engine(ours, lr=0.01, beta2=0.99, zero=zero, micro_batch=2, accumulate=2, ranks=ranks,
                    skip_nonfinite=True)  # fmt: skip
    reference = Plain(plain, 0.01, ranks.world)
    seen, after = [], []
    for number in range(3):
        torch.manual_seed(number)
        parts = split((torch.randn(4 * ranks.world, 4),), ranks, 2)
        spoilt = fault if number == 1 and ranks.rank == ranks.world - 1 else "none"
        seen.append(engine.step("all", [(*parts[0], spoilt), (*parts[1], "none")]))
        after.append(copy.deepcopy(list(ours.parameters())))
        if number != 1:
            reference.step("all", [(*part, "none") for part in parts])
        elif fault == "loss":  # half of the mean over two parts, the other part is zero
            reference.step("half", [(*parts[1], "none"), (*parts[1], "none")])
    return {
        "skipped": [float(one["skipped"]) for one in seen],
        "losses": [float(one.get("loss", -1.0)) for one in seen],
        "stayed": all(torch.equal(a, b) for a, b in zip(after[0], after[1], strict=True)),
        "finite": all(bool(p.isfinite().all()) for p in ours.parameters()),
        "worst": difference(ours.parameters(), plain.parameters()),
    }


def resume(
    ranks: dist.Ranks, stage: int, offload: bool, first: int, last: int, folder: str
) -> dict:
    """Steps `first` to `last`, from and to the files in `folder`."""
    zero = ZeroSettings(stage=stage, offload=offload)  # type: ignore[arg-type]
    where, phases = Path(folder), Faulty()
    if first > 0:
        phases.load_state_dict(load_file(where / "weights.safetensors"))
    engine = Engine(phases, lr=0.01, beta2=0.99, zero=zero, micro_batch=8 // ranks.world,
                    ranks=ranks)  # fmt: skip
    if first > 0:
        engine.load_optimizer_state(load_file(where / "adam.safetensors"))
    for number in range(first, last):
        torch.manual_seed(number)
        engine.step("all", [(*part, "none") for part in split((torch.randn(8, 4),), ranks, 1)])
    state = engine.optimizer_state()
    if ranks.is_main:
        save_file({key: v.clone() for key, v in phases.state_dict().items()},
                  where / "weights.safetensors")  # fmt: skip
        save_file(state, where / "adam.safetensors")
    return {"step": float(state["step"])}


def main() -> None:
    ranks = dist.discover()
    torch.set_num_threads(1)
    initialize(ranks)
    for words in json.loads(sys.argv[1]):
        found = {"equal": equal, "resume": resume, "skip": skip}[words[0]](ranks, *words[1:])
        if ranks.is_main:
            print(json.dumps(found))


if __name__ == "__main__":
    main()
