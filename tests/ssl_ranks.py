"""One rank of the tests of ``sunpipe ssl``: batch norm over ranks, and whole runs.

``norm`` prints the largest relative difference, float64, of a network with batch norm
over ranks to the same on one process with the whole batch: outputs, gradients and
running averages. ``train ROOT STOP OVERRIDES`` trains configs/tiny.toml, to be stopped
after so many batches unless STOP is 0, and prints the last row.
"""

from __future__ import annotations

import copy
import json
import os
import sys

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.config import load_config
from sunpipe.dist import discover
from sunpipe.errors import SunpipeError
from sunpipe.stop import StopFlag
from sunpipe.train.ssl import train_ssl
from sunpipe.train.ssl_norm import RankNorm, over_ranks
from tests.conftest import REPO

BATCH = 12


def network() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 36, 4), nn.BatchNorm1d(4, affine=False),
    )  # fmt: skip
    return layers.double().train()


def results(layers: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of a loss that is a mean over samples, and running averages after two batches."""
    for batch in (x, 2 * x + 1):
        layers.zero_grad()
        (layers(batch) * weight).tanh().mean().backward()
    gradients = [p.grad for p in layers.parameters() if p.grad is not None]
    return [*gradients, *(b.double() for b in layers.buffers())]


def norm() -> None:
    torch_dist.init_process_group("gloo")
    rank, world = torch_dist.get_rank(), torch_dist.get_world_size()
    source = torch.Generator().manual_seed(5)
    x, weight = (
        torch.randn(shape, generator=source, dtype=torch.float64)
        for shape in ((BATCH, 2, 8, 8), (BATCH, 4))
    )
    whole, split = network(), network()
    before = copy.deepcopy(split.state_dict())
    over_ranks(split, world, torch.device("cpu"))
    assert sum(isinstance(module, RankNorm) for module in split.modules()) == 2
    assert split.state_dict().keys() == before.keys()
    reference = results(whole, x, weight)
    ours = results(split, x[rank::world], weight[rank::world])
    for value in ours:
        torch_dist.all_reduce(value)
        value /= world
    gap = max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
              for a, b in zip(ours, reference, strict=True))  # fmt: skip
    split.eval()
    whole.eval()
    with torch.no_grad():
        gap = max(gap, float((split(x) - whole(x)).abs().max()))
    if rank == 0:
        print(json.dumps({"gap": gap}))
    torch_dist.destroy_process_group()


class StopAfter(StopFlag):
    """Asks to stop after so many batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = batches

    def __bool__(self) -> bool:
        self.left -= 1
        if self.left == 0:
            self.reason = "SIGTERM"
        return super().__bool__()


def train(root: str, batches: int, overrides: list[str]) -> None:
    os.environ["SUNPIPE_ROOT"] = root
    config = load_config(REPO / "configs/tiny.toml", overrides)
    try:
        row = train_ssl(config, stop=StopAfter(batches))
    except SunpipeError as error:
        print(f"sunpipe: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    assert (row is None) == (discover().rank > 0)
    print(json.dumps(row))


def main() -> None:
    """``norm`` or ``train``."""
    torch.set_num_threads(1)
    if sys.argv[1] == "norm":
        norm()
    else:
        train(sys.argv[2], int(sys.argv[3]), sys.argv[4:])


if __name__ == "__main__":
    main()
