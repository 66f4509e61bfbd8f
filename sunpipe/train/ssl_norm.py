"""Batch norm over the batch of all ranks.

On GPUs torch's SyncBatchNorm; it knows no other device, so that on the CPU the
two sums are exchanged here. The names of weights and buffers stay the same, and
a network of one rank is left as it is.

timm's networks have batch norms that also drop and bend what they gave (`drop` and
`act` of its BatchNormAct2d); both are kept.
"""

from __future__ import annotations

import torch
from torch import nn

from sunpipe.train.means import mean_over_ranks

Tensor = torch.Tensor
AnyNorm = nn.modules.batchnorm._BatchNorm
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d)


class RankNorm(AnyNorm):
    """Batch norm whose mean and variance are those of all ranks, any device.

    Mean first, then the mean square of what is left: no difference of large numbers.
    The exchanges are steps of the computation like any other (`mean_over_ranks`), so
    that averaged gradients are those of the whole batch on one process. What a norm of
    timm does after it, `drop` and `act`, is done after this one.
    """

    def __init__(self, norm: AnyNorm, world: int) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        # the very tensors: a teacher's weights stay untrained, a double's stay double
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())
        self.world = world
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"batch norm takes (B, C, ...), not {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) to the same shape."""
        found = self._over_ranks(input) if self.training else super().forward(input)
        after: Tensor = self.act(self.drop(found))
        return after

    def _over_ranks(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        mean = mean_over_ranks(input.mean(axes), self.world)
        centred = input - mean.view(shape)
        variance = mean_over_ranks(centred.square().mean(axes), self.world)
        self._follow(mean.detach(), variance.detach(), self.world * input.numel() // len(mean))
        gain = torch.rsqrt(variance + self.eps)
        if self.affine:
            return torch.addcmul(self.bias.view(shape), centred, (gain * self.weight).view(shape))
        return centred * gain.view(shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


def _bends(norm: AnyNorm) -> bool:
    return isinstance(norm, nn.BatchNorm2d) and hasattr(norm, "drop") and hasattr(norm, "act")


def check_norms(network: nn.Module) -> None:
    """Refuse batch norms of which it is not known what they do beside normalising.

    Raises
    ------
    ValueError
        Names the kind.
    """
    for norm in network.modules():
        if isinstance(norm, AnyNorm) and type(norm) not in PLAIN and not _bends(norm):
            raise ValueError(
                f"its {type(norm).__name__} is not known over several ranks; train it on one"
            )


def over_ranks(network: nn.Module, world: int, device: torch.device) -> nn.Module:
    """Make every batch norm of a network one over `world` ranks.

    Raises
    ------
    ValueError
        A batch norm of an unknown kind (`check_norms`).
    """
    if world == 1:
        return network
    check_norms(network)
    if device.type == "cuda":
        return _synchronised(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AnyNorm):
                setattr(module, name, RankNorm(child, world))
    return network


def _synchronised(network: nn.Module) -> nn.Module:
    if any(_bends(norm) for norm in network.modules() if isinstance(norm, AnyNorm)):
        from timm.layers import convert_sync_batchnorm  # torch's own drops what follows the norm

        found: nn.Module = convert_sync_batchnorm(network)
        return found
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return converted
