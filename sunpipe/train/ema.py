"""Exponential moving average of the generator, with a half-life in images."""

from __future__ import annotations

import torch
from torch import nn


def ema_beta(batch: int, nimg: int, half_life_kimg: float, rampup: float) -> float:
    """Decay per step: half the weight is gone after the half-life.

    The half-life is at most `rampup` times the images shown so far, so that
    early averages forget the initial weights (arXiv:2006.06676, training code
    description).
    """
    half_life = half_life_kimg * 1000
    if rampup > 0:
        half_life = min(half_life, nimg * rampup)
    return 0.5 ** (batch / max(half_life, 1e-8))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, beta: float) -> None:
    """``average = beta average + (1 - beta) network``; buffers are copied.

    A network with a number that is not finite leaves the average as it is. That
    is decided where the weights are, without waiting for them.
    """
    weights, buffers = list(network.parameters()), list(network.buffers())
    numbers = [tensor for tensor in (*weights, *buffers) if tensor.is_floating_point()]
    finite = torch.isfinite(torch.stack(torch._foreach_norm(numbers))).all()
    for kept, new in zip(average.parameters(), weights, strict=True):
        kept.copy_(torch.where(finite, torch.lerp(new, kept, beta), kept))
    for stored, current in zip(average.buffers(), buffers, strict=True):
        stored.copy_(torch.where(finite, current, stored))
