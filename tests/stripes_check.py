"""One rank of the stripes test: G and D in stripes against unsplit ones, same weights.

Run by tests/integration/test_stripes.py with the torchrun variables set, four
ranks. Each rank prints one JSON document: what it compared, as errors of the image,
the logits and the gradients of each phase, and the bytes that autograd keeps.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.models import exchange
from sunpipe.models.noise import SampleNoise
from sunpipe.models.stripes import Stripes, data_rank
from sunpipe.models.stylegan2 import Discriminator, Generator
from sunpipe.train.losses import nonsaturating_d, nonsaturating_g, path_lengths, r1_penalty
from sunpipe.train_settings import ComputeSettings, ModelSettings

Tensor = torch.Tensor
BATCH, CHANNELS = 2, 3
NOISE = SampleNoise((3, 4))


def networks(
    model: ModelSettings, compute: ComputeSettings, stripes: Stripes | None, dtype: torch.dtype,
    resolution: int,
) -> tuple[Generator, Discriminator]:  # fmt: skip
    """G and D, the same at every call, copied as the trainer copies G for its average."""
    torch.manual_seed(0)
    pair = (Generator(resolution, CHANNELS, model, compute, stripes).to(dtype),
            Discriminator(resolution, CHANNELS, model, compute, stripes).to(dtype))  # fmt: skip
    for network in pair:
        for name, parameter in network.named_parameters():
            if "strength" in name or "bias" in name:  # zero at the start, which proves little
                nn.init.normal_(parameter, mean=float("affine" in name), std=0.5)
    return copy.deepcopy(pair)


def phases(
    g: Generator, d: Discriminator, batch: tuple[Tensor, ...], noise: Any, frozen: str
) -> dict[str, Any]:
    """Image, logits, and the gradients that each phase gives the parameters.

    D is frozen while G is trained, and those of its parameters that `frozen` names always.
    """
    z, real, y = batch
    found: dict[str, Any] = {}

    def phase(name: str, network: nn.Module, loss: Tensor) -> None:
        trained = [(key, p) for key, p in network.named_parameters() if p.requires_grad]
        names, parameters = zip(*trained, strict=True)
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, part, called in zip(parameters, parts, names, strict=True):
            found[f"{name}/{called}"] = torch.zeros_like(parameter) if part is None else part

    def w_plus() -> Tensor:
        return g.broadcast(g.mapping(z))

    image = g.synthesis(w_plus(), noise)
    logits = d.requires_grad_(False)(image)
    found["image"], found["logits"] = image.detach(), logits.detach()
    phase("main G", g, nonsaturating_g(logits))
    lengths = path_lengths(lambda w: g.synthesis(w, noise), w_plus(), y)
    phase("path length", g, (lengths - 0.1).square().mean())
    d.requires_grad_(True)
    for key, parameter in d.named_parameters():
        parameter.requires_grad_(not frozen or frozen not in key)
    phase("main D", d, nonsaturating_d(d(real), d(image.detach())))
    phase("R1", d, r1_penalty(d, real))
    return found


def results(
    part: int, dtype: torch.dtype, stripes: Stripes | None, *, resolution: int = 16,
    noise: Any = NOISE, frozen: str = "", model: dict[str, Any] | None = None, **compute: Any,
) -> dict[str, Tensor]:  # fmt: skip
    """`phases` of this part of the batch, in stripes or whole."""
    sizes = ModelSettings(z_dim=8, w_dim=8, mapping_layers=1, channel_base=4 * resolution,
                          channel_max=8, mbstd_group=2, **(model or {}))  # fmt: skip
    source = torch.Generator().manual_seed(part)
    image = (BATCH, CHANNELS, resolution, resolution)
    batch = tuple(torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype)
                  for shape in ((BATCH, 8), image, image))  # fmt: skip
    settings = ComputeSettings(**{"stripes_from": 8, **compute})
    return phases(*networks(sizes, settings, stripes, dtype, resolution), batch, noise, frozen)


def worst(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Per phase, the worst parameter: largest difference over its largest value."""
    errors: dict[str, float] = {}
    for name, value in found.items():
        kind, scale = name.split("/")[0], float(wanted[name].abs().max()) or 1.0
        bad = float((value - wanted[name]).abs().max()) / scale
        errors[kind] = max(errors.get(kind, 0.0), bad if bad == bad else float("inf"))
    return errors


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Per phase, the norm of the difference over the norm, all parameters together."""
    sums: dict[str, list[float]] = {}
    for name, value in found.items():
        total = sums.setdefault(name.split("/")[0], [0.0, 0.0])
        total[0] += float((value.double() - wanted[name].double()).square().sum())
        total[1] += float(wanted[name].double().square().sum())
    return {kind: (above / below) ** 0.5 for kind, (above, below) in sums.items()}


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    """Whether all bits are the same."""
    return all(torch.equal(value, wanted[name]) for name, value in found.items())


def same_on_all(found: dict[str, Tensor], stripes: Stripes) -> bool:
    """Whether the ranks that share an image found the same bits."""
    flat = torch.cat([value.reshape(-1) for value in found.values()])
    low, high = flat.clone(), flat.clone()
    torch_dist.all_reduce(low, op=torch_dist.ReduceOp.MIN, group=stripes.handle)
    torch_dist.all_reduce(high, op=torch_dist.ReduceOp.MAX, group=stripes.handle)
    return torch.equal(low, high)


def kept_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of what `function` computes, each storage once, no parameters."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def memory(stripes: Stripes | None) -> dict[str, int]:
    """Bytes kept by the forward passes of G and D, and by the gradient of D that R1 needs."""
    size = 128
    model = ModelSettings(z_dim=8, w_dim=8, mapping_layers=1, channel_base=8 * size,
                          channel_max=8, mbstd_group=1)  # fmt: skip
    compute = ComputeSettings(stripes_from=16)
    g, d = networks(model, compute, stripes, torch.float32, size)
    w_plus = torch.randn(1, g.num_ws, 8, requires_grad=True)
    image = torch.randn(1, CHANNELS, size, size, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(d(image).sum(), image, create_graph=True)[0]

    return {"G": kept_bytes(lambda: g.synthesis(w_plus, SampleNoise((3,)))),
            "D": kept_bytes(lambda: d(image)), "R1": kept_bytes(gradient)}  # fmt: skip


def without_halos(stripes: Stripes) -> dict[str, Tensor]:
    """What stripes find that do not talk to their neighbours."""
    talking = exchange.swap
    exchange.swap = lambda up, down, group: (torch.zeros_like(down), torch.zeros_like(up))
    found = results(0, torch.float64, stripes)
    exchange.swap = talking
    return found


def main() -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch_dist.init_process_group("gloo")
    two, four = (Stripes.make(world, rank, count) for count in (2, 4))
    assert two is not None
    assert four is not None
    part, double, single = data_rank(rank, 2), torch.float64, torch.float32
    variants: dict[str, tuple[Stripes, dict[str, Any]]] = {
        "4 stripes": (four, {}),
        "upper half, const": (four, {"resolution": 32, "stripes_from": 9, "noise": "const"}),
        "residual, skip": (
            two, {"frozen": "16.conv.weight", "model": {
                "g_architecture": "residual", "d_architecture": "skip"}}
        ),
        "orig, clamp": (
            four, {"channels_last": False, "model": {
                "g_architecture": "orig", "d_architecture": "orig", "conv_clamp": 2.0}}
        ),
    }  # fmt: skip
    bf16: dict[str, Any] = {"precision": "bf16", "bf16_from": 8}
    again: dict[str, Any] = {"checkpoint": "conv", "checkpoint_from": 4}
    split = {name: results(0, double, stripes, **settings)
             for name, (stripes, settings) in variants.items()}  # fmt: skip
    own_part = results(part, double, two)  # each group has its part of the batch
    mute = without_halos(four)
    block = results(0, double, four, checkpoint="block", checkpoint_from=4)
    split_single, split_bf16 = (results(0, single, four, **more) for more in ({}, bf16))
    found: dict[str, Any] = {
        "same on all": all(
            [same_on_all(values, variants[name][0]) for name, values in split.items()]
            + [same_on_all(own_part, two)]
        ),
        "recomputed block": equal(block, split["4 stripes"]),
        "recomputed conv, bf16": equal(results(0, single, four, **bf16, **again), split_bf16),
    }
    # all ranks of a group hold the same, so one of them compares it
    for judge, (name, (_, settings)) in enumerate(variants.items()):
        if rank == judge:
            found[name] = worst(split[name], results(0, double, None, **settings))
    if rank == 0:
        found["without halos"] = worst(mute, results(0, double, None))
    if rank == 2:
        found["2 stripes"] = worst(own_part, results(part, double, None))
    if rank == 3:
        whole = results(0, single, None)
        found["float32"] = distance(split_single, whole)
        found["bf16"] = distance(split_bf16, whole)
        found["bf16 whole"] = distance(results(0, single, None, **bf16), whole)

    found["memory"] = {"whole": memory(None), "2": memory(two), "4": memory(four)}
    print(json.dumps(found))
    torch_dist.destroy_process_group()


if __name__ == "__main__":
    main()
