"""One rank of the engine test: DeepSpeed phases against plain PyTorch, same seeds.

Run by tests/integration/test_engine.py with the torchrun variables set. Prints
the largest relative difference of any parameter after six iterations.
"""

from __future__ import annotations

import copy
import json
import sys

import torch
import torch.distributed as torch_dist

from sunpipe import dist
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.engine import Engine, initialize
from sunpipe.train.phases import DiscriminatorPhases, GeneratorPhases
from sunpipe.train_settings import ModelSettings, TrainSettings, ZeroSettings

BATCH = 4


class Plain:
    """The reference: torch's Adam on gradients averaged over ranks."""

    def __init__(self, phases: torch.nn.Module, lr: float, world: int) -> None:
        self.phases, self.world = phases, world
        self.adam = torch.optim.Adam(phases.parameters(), lr=lr, betas=(0.0, 0.99), eps=1e-8)

    def step(self, phase: str, *args: torch.Tensor) -> None:
        self.adam.zero_grad()
        loss, _ = self.phases(phase, *args)
        loss.backward()
        for parameter in self.phases.parameters():
            # a flat partition has no missing gradients: they are zero
            gradient = parameter.grad
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
            if self.world > 1:
                torch_dist.all_reduce(parameter.grad)
                parameter.grad /= self.world
        self.adam.step()


def iterate(
    g: object, d: object, generator: Generator, network_d: Discriminator, rank: int
) -> None:
    for number in range(6):
        torch.manual_seed(1000 * rank + number)
        z, z2 = torch.randn(BATCH, 16), torch.randn(BATCH, 16)
        real = torch.randn(BATCH, 3, 16, 16)
        network_d.requires_grad_(False)
        g.step("main", z, z2)  # type: ignore[attr-defined]
        if number % 2 == 0:
            g.step("path", z[:2], z2[:2])  # type: ignore[attr-defined]
        network_d.requires_grad_(True)
        with torch.no_grad():
            fake = generator(z)
        d.step("main", real, fake)  # type: ignore[attr-defined]
        if number % 3 == 0:
            d.step("r1", real)  # type: ignore[attr-defined]


def moment_error(engine: Engine, plain: Plain) -> float:
    """Largest relative difference of the named moments; infinite if the step counts differ."""
    state, worst = engine.optimizer_state(), 0.0
    for name, parameter in plain.phases.named_parameters():
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


def main() -> None:
    zero = ZeroSettings(stage=int(sys.argv[1]), offload=sys.argv[2] == "offload")
    ranks = dist.discover()
    torch.set_num_threads(1)
    initialize(ranks)
    model = ModelSettings(
        z_dim=16, w_dim=16, mapping_layers=2, channel_base=128, channel_max=8, mbstd_group=2
    )
    cfg = TrainSettings(model=model, zero=zero, batch=BATCH)
    torch.manual_seed(0)
    generator, discriminator = Generator(16, 3, model), Discriminator(16, 3, model)
    start = copy.deepcopy((generator, discriminator))
    plain_g, plain_d = copy.deepcopy(start)
    common = {"lr": 0.002, "beta2": 0.99, "zero": zero, "micro_batch": BATCH, "ranks": ranks}
    engine_g = Engine(GeneratorPhases(generator, discriminator, cfg), **common)
    engine_d = Engine(DiscriminatorPhases(discriminator, cfg), **common)
    iterate(engine_g, engine_d, generator, discriminator, ranks.rank)
    reference_g = Plain(GeneratorPhases(plain_g, plain_d, cfg), 0.002, ranks.world)
    reference_d = Plain(DiscriminatorPhases(plain_d, cfg), 0.002, ranks.world)
    iterate(reference_g, reference_d, plain_g, plain_d, ranks.rank)
    moments = max(moment_error(engine_g, reference_g), moment_error(engine_d, reference_d))
    restored = restores(engine_d, copy.deepcopy(discriminator), cfg, common)
    worst, moved = 0.0, 0.0
    for ours, reference, old in zip(
        [*generator.parameters(), *discriminator.parameters()],
        [*plain_g.parameters(), *plain_d.parameters()],
        [*start[0].parameters(), *start[1].parameters()],
        strict=True,
    ):
        scale = float(reference.abs().max()) or 1.0
        worst = max(worst, float((ours - reference).abs().max()) / scale)
        moved = max(moved, float((ours - old).abs().max()))
    if ranks.is_main:
        found = {"worst": worst, "moved": moved, "moments": moments, "restored": restored}
        print(json.dumps(found))


if __name__ == "__main__":
    main()
