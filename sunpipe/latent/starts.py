"""Where an inversion begins: the encoder's answer, the nearest sample, others near them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from sunpipe.latent.cloud import Cloud
from sunpipe.latent.inverter import Inverter
from sunpipe.latent.measure import batches
from sunpipe.latent.misfit import FieldMisfit
from sunpipe.shards.order import generator_seed

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator, Noise

PERTURBED = 0.5  # standard deviations of the cloud by which further starts differ
BATCH = 64


@torch.no_grad()
def nearest(
    generator: Generator, cloud: Cloud, field: FieldMisfit, noise: Noise,
    poll: Callable[[], None] = lambda: None,
) -> int:  # fmt: skip
    """Number of the cloud's latent whose patch has the least misfit."""
    found = []
    for rows in batches(len(cloud.w), BATCH):
        poll()
        found.append(field(generator.fields(cloud.w[rows], noise)))
    costs = torch.cat(found)
    return int(torch.where(costs.isfinite(), costs, torch.inf).argmin())


@torch.no_grad()
def make_starts(
    fields: torch.Tensor, network: Inverter, cloud: Cloud, near: int, count: int, seed: int,
    layers: int | None = None,
) -> tuple[list[str], torch.Tensor]:  # fmt: skip
    """Names of the starts and their cloud coordinates, (count, K) or (count, layers, K).

    The encoder comes first, then the nearest, then the two in turn with normal noise of half a
    standard deviation, the same in all layers and pure in (`seed`, number).

    Parameters
    ----------
    fields : Tensor, (1, C, H, H)
        Observed, gauss, 0 where invalid.
    near : int
        Of `nearest`. Where that sample has two styles, w_plus begins with both, w with their mean.
    layers : int, optional
        Of w_plus; None for w.
    """
    base = cloud.to_u(cloud.w[near])
    if layers is None:
        bases = [network(fields)[0], base.mean(dim=0) if base.ndim == 2 else base]
    else:
        bases = [network(fields)[0].expand(layers, -1), base.expand(layers, -1)]
    names, starts = [], []
    for number in range(count):
        point, turn = bases[number % 2], number // 2
        name = ("encoder", f"sample {near}")[number % 2]
        if turn:
            source = torch.Generator().manual_seed(generator_seed(seed, 0, number, "starts"))
            point = point + PERTURBED * torch.randn(cloud.dim, generator=source).to(point)
            name = f"{name} moved {turn}"
        names.append(name)
        starts.append(point)
    return names, torch.stack(starts)
