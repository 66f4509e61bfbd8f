"""One rank of the test of means over ranks: a split batch against the whole one, float64.

Run by tests/integration/test_means.py with the torchrun variables set. Rank 0
prints, per quantity, the largest relative difference to one process with the
whole batch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import torch
import torch.distributed as torch_dist

from sunpipe.train import ada
from sunpipe.train.losses import adversarial
from sunpipe.train.means import mean_over_ranks
from sunpipe.train.watch import diversity
from sunpipe.train_settings import AdaSettings

Tensor = torch.Tensor
Mean = Callable[[Tensor], Tensor]
BATCH, SIDE = 12, 5
KINDS = ("nonsaturating", "hinge", "relativistic_average", "relativistic_pair")


def drawn() -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(4)
    shapes = {"real": (BATCH, SIDE), "z": (BATCH, 3), "weight": (SIDE,), "matrix": (3, SIDE)}
    return {name: torch.randn(shape, generator=source, dtype=torch.float64)
            for name, shape in shapes.items()}  # fmt: skip


def first_gradients(kind: str, mean: Mean, real: Tensor, z: Tensor) -> list[Tensor]:
    """Of D's loss by D's weights, and of G's loss by G's, of a linear D and G."""
    weight, matrix = (drawn()[name].requires_grad_(True) for name in ("weight", "matrix"))
    d_loss, g_loss = adversarial(kind, mean)  # type: ignore[arg-type]
    fake = z @ matrix
    loss_d = d_loss(real @ weight, fake.detach() @ weight)
    loss_g = g_loss(fake @ weight, real @ weight)
    return [loss_d.detach(), loss_g.detach(), *torch.autograd.grad(loss_d, weight),
            *torch.autograd.grad(loss_g, matrix)]  # fmt: skip


def second_gradient(mean: Mean, real: Tensor, z: Tensor, world: int) -> list[Tensor]:
    """By the weights, of the squared gradient of the loss by the images."""
    weight = drawn()["weight"].requires_grad_(True)
    d_loss, _ = adversarial("relativistic_average", mean)
    real = real.clone().requires_grad_(True)
    loss = d_loss((real @ weight).sin(), (z @ drawn()["matrix"]) @ weight)
    # The loss of all is the mean over ranks, so is its gradient by the images of one rank.
    (by_image,) = torch.autograd.grad(loss / world, real, create_graph=True)
    return list(torch.autograd.grad(by_image.square().sum() * world, weight))


def averaged(values: list[Tensor], world: int) -> list[Tensor]:
    """What DeepSpeed makes of gradients."""
    for value in values:
        torch_dist.all_reduce(value)
        value /= world
    return values


def difference(ours: list[Tensor], whole: list[Tensor]) -> float:
    pairs = zip(ours, whole, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def strength(logits: Tensor, world: int) -> dict[str, float]:
    """ADA's state and p after two adjustments and half of a third interval."""
    settings = AdaSettings(target=0.5, interval=2, kimg=1.0)
    state = ada.start(torch.device("cpu"))
    for step in range(5):
        state = ada.observe(state, ada.count_signs(logits + step), world)
        if step % 2:
            state = ada.adjust(state, settings, BATCH)
    return ada.to_json(state)


def main() -> None:
    torch.set_num_threads(1)
    torch_dist.init_process_group("gloo")
    rank, world = torch_dist.get_rank(), torch_dist.get_world_size()
    mean = functools.partial(mean_over_ranks, world=world)
    real, z = drawn()["real"], drawn()["z"]
    mine = slice(rank, None, world)
    found = {
        kind: difference(averaged(first_gradients(kind, mean, real[mine], z[mine]), world),
                         first_gradients(kind, lambda x: x, real, z))
        for kind in KINDS
    }  # fmt: skip
    local = averaged(first_gradients(KINDS[2], lambda x: x, real[mine], z[mine]), world)
    found["local_bars"] = difference(local, first_gradients(KINDS[2], lambda x: x, real, z))
    second = averaged(second_gradient(mean, real[mine], z[mine], world), world)
    found["second"] = difference(second, second_gradient(lambda x: x, real, z, 1))
    spread = diversity(z[mine], real[mine, :3], mean)
    found["diversity"] = difference([spread], [diversity(z, real[:, :3], lambda x: x)])
    ours, whole = strength(real[mine, 0], world), strength(real[:, 0], 1)
    untouched = torch.arange(3.0) + rank  # the forward pass leaves its input alone
    mean(untouched)
    found["input_kept"] = float((untouched - torch.arange(3.0) - rank).abs().max())
    if rank == 0:
        print(json.dumps({**found, "ada": ours, "ada_whole": whole}))
    torch_dist.destroy_process_group()


if __name__ == "__main__":
    main()
