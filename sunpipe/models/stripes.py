"""One image over several ranks: features in stripes of rows, with exchanged halos.

A group of `count` neighbouring ranks computes the same samples. Images and
features of low resolution are *replicated*: every rank of the group holds them
whole. From some resolution on features are *striped*: each rank holds its own
rows. The gradient of a replicated tensor is complete, and the same, on every
rank; that of a striped one is in stripes like it. Four pairs of linear maps lead
from one kind to the other, each the adjoint of its partner, so that derivatives
of any order are right (R1, path length):

========== ================================== ======================================
split      replicated to own rows             gather: rows of all ranks to replicated
halo       neighbours' rows beside own ones   give back: add them to their owners'
share      replicated to one copy per rank    reduce: sum of the copies
add_edges  corrections into the edge rows     take the edge rows
========== ================================== ======================================

A convolution never sees a padded copy of its input. By linearity, the unsplit
result is that of the own rows between rows of zeros, plus, in the first and last
rows, that of the neighbours' rows alone, which is a convolution of ``4 * reach``
rows. So a stripe keeps for the backward pass what the unsplit layer keeps,
1 / count of it.

Each exchange sends ``reach * width * channels`` numbers per sample to each
neighbour, `reach` being 1 for 3 x 3 convolutions and upsampling, 2 for
downsampling: at 4096 with 8 channels in bfloat16 that is 65 536 bytes per row,
131 kB where the reach is 2. The same goes back in the backward pass.

Spatial parallelism of convolutions: Dryden et al. 2019,
doi:10.1109/IPDPS.2019.00031; data movements and their adjoints: Hewett and Grady
2020, arXiv:2006.03108. Both pad each stripe by its halo; the edge rows apart are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as torch_dist
from torch import nn

from sunpipe.models import exchange
from sunpipe.models.exchange import Group, own_rows

Tensor = torch.Tensor
Given = TypeVar("Given", bound=torch.Tensor | None)


def data_rank(rank: int, stripes: int) -> int:
    """Which part of the batch a rank holds: the same in a group of stripes."""
    return rank // stripes


def data_world(world: int, stripes: int) -> int:
    """In how many parts the batch is split.

    Raises
    ------
    ValueError
        When the ranks are no whole number of groups.
    """
    if world % stripes:
        raise ValueError(f"compute.stripes={stripes} does not divide the {world} ranks")
    return world // stripes


def check(stripes: int, stripes_from: int, resolution: int) -> None:
    """Refuse stripes that cannot be, or that would leave every layer whole.

    The lowest striped resolution begins with features of half its size, which are
    the smallest that are split.

    Raises
    ------
    ValueError
        When these rows do not divide over the stripes, or when `stripes_from` is
        above `resolution`.
    """
    if stripes == 1:
        return
    if stripes_from > resolution:
        raise ValueError(
            f"compute.stripes_from={stripes_from} is above the resolution {resolution}:"
            f" the {stripes} ranks of compute.stripes would all do the same work"
        )
    half = 2 ** (stripes_from - 1).bit_length() // 2  # resolutions are powers of two
    if half % stripes:
        raise ValueError(
            f"compute.stripes={stripes} does not divide the {half} rows with which"
            f" compute.stripes_from={stripes_from} begins"
        )


class Stripes(Group):
    """Stripes of rows of one image over the ranks of a group.

    Every rank of the group must call the same methods in the same order, in the
    backward pass too: networks whose graph depends on the data cannot be striped.
    """

    @classmethod
    def make(cls, world: int, rank: int, count: int, timeout_s: float = 600.0) -> Stripes | None:
        """Make the groups; None when `count` is 1. All ranks call it once, after the process group.

        Neighbours in rank share an image: with the usual order of ranks they are
        on one node.

        Raises
        ------
        ValueError
            When `count` does not divide `world`.
        """
        groups = data_world(world, count)
        if count == 1:
            return None
        mine = None
        for first in range(groups):
            ranks = list(range(first * count, (first + 1) * count))
            made = torch_dist.new_group(ranks, timeout=timedelta(seconds=timeout_s))
            mine = made if rank in ranks else mine
        return cls(count, rank % count, mine)

    def own(self, x: Tensor) -> Tensor:
        """Own rows (..., h, W) of a constant (..., H, W); a view without a gradient."""
        return x[..., own_rows(self, x.shape[-2]), :]

    def split(self, x: Tensor) -> Tensor:
        """Replicated (B, C, H, W) to own rows (B, C, H / count, W)."""
        return exchange.split(x, self)

    def gather(self, x: Tensor) -> Tensor:
        """Own rows (B, C, h, W) to replicated (B, C, h * count, W)."""
        return exchange.gather(x, self)

    def halo(self, x: Tensor, reach: int) -> tuple[Tensor, Tensor]:
        """Rows of the neighbours next to the own ones (B, C, h, W).

        Returns
        -------
        x : Tensor
            As given; to be used in its place, so that the backward pass adds up
            what both results receive.
        halo : Tensor, shape (B, C, 2 * reach, W)
            `reach` rows from above, then as many from below, zero outside the image.
        """
        return exchange.halo(x, self, reach)

    def share(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Replicated tensors for use on striped ones; their gradients are summed over the ranks.

        Weights and styles are shared in calls of their own, otherwise a gradient
        of one makes autograd compute the other's. All have one type.
        """
        return exchange.share(self, *tensors)

    def share_given(self, *tensors: Tensor | None) -> tuple[Any, ...]:
        """`share` those that are there; None for the others."""
        shared = iter(self.share(*(tensor for tensor in tensors if tensor is not None)))
        return tuple(None if tensor is None else next(shared) for tensor in tensors)

    def apply(self, linear: Callable[[Tensor], Tensor], x: Tensor, reach: int) -> Tensor:
        """Apply a linear map of images to own rows, as if the whole image were there.

        Parameters
        ----------
        linear : callable
            (B, C, H, W) to (B, C', s H, W'), s being 1/2, 1 or 2, the same at all
            heights, with zeros outside the image and no constant term. It must
            not need its result in the backward pass: that is changed in place.
        x : Tensor, shape (B, C, h, W)
        reach : int
            From how many rows away on either side results may depend on the
            input; even where s is 1/2. An output row may be reached only from
            ``s * reach`` of its own scale.
        """
        x, halo = self.halo(x, reach)
        strip = linear(between(halo))
        edge = strip.shape[2] // 4
        return exchange.add_edges(linear(x), strip[:, :, edge : 3 * edge])


def moved(x: Given, before: Stripes | None, after: Stripes | None) -> Given:
    """Features of a layer under `before` for one under `after`: split, gathered or as they are."""
    if x is None or before is after:
        return x
    return exchange.gather(x, before) if after is None else exchange.split(x, after)


def unsplit(network: nn.Module) -> None:
    """Have each rank compute whole images alone: for samples of a copy of G on one rank."""
    for module in network.modules():
        compute = getattr(module, "compute", None)
        if compute is not None:
            compute.stripes = None


def between(halo: Tensor) -> Tensor:
    """The strip that stands for both edges: rows from above, zeros for our own, rows from below.

    There are ``2 * reach`` rows of zeros, which keep the edges apart, whatever the
    height of the stripe.

    Parameters
    ----------
    halo : Tensor, shape (B, C, 2 * reach, W)

    Returns
    -------
    Tensor, shape (B, C, 4 * reach, W)
    """
    above, below = halo.chunk(2, dim=2)
    return torch.cat([above, torch.zeros_like(halo), below], dim=2)
