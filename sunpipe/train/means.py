"""Means over the samples of all ranks, as one step of a differentiable computation."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as torch_dist


class _Mean(torch.autograd.Function):
    """All-reduced mean, forward and backward: its own adjoint, hence differentiable again."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, world: int) -> torch.Tensor:
        ctx.world = world
        total = x.detach().clone(memory_format=torch.contiguous_format)
        torch_dist.all_reduce(total)
        return total / world

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _Mean.apply(gradient, ctx.world), None


def mean_over_ranks(x: torch.Tensor, world: int) -> torch.Tensor:
    r"""Mean of `x` over all ranks, the same on each of them.

    With y the mean of :math:`x_r` over W ranks and a loss :math:`L = \frac{1}{W}
    \sum_r L_r(x_r, y)`, the part of rank s that goes through y is :math:`\partial
    L / \partial x_s = \frac{1}{W} \cdot \frac{1}{W} \sum_r \partial L_r / \partial
    y`. Gradients of parameters are averaged over ranks, which gives the first
    factor :math:`1 / W`; the mean of the incoming gradients over ranks is the
    rest. So the averaged gradients are those of the whole batch on one process,
    first and second ones.

    Parameters
    ----------
    x : Tensor
        Of the same shape and type on every rank, each standing for as many samples.
    world : int
        Number of ranks; with 1 nothing is exchanged and `x` itself is returned.

    Notes
    -----
    Forward and backward are collective: every rank must use the result in a loss
    of the same form. One call on stacked values is cheaper than two calls.
    """
    return x if world == 1 else _Mean.apply(x, world)
