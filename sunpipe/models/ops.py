"""Small parts of StyleGAN2 in plain PyTorch, twice differentiable, no compiled plugins.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN"
(arXiv:1912.04958); equalised learning rate from arXiv:1710.10196.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

SQRT2 = math.sqrt(2.0)


def normalize_2nd_moment(x: torch.Tensor) -> torch.Tensor:
    """Scale each row of (B, K) to unit mean square (pixel norm of the latent)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def lrelu(x: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU (0.2) times sqrt(2), which keeps the variance of a normal input."""
    return F.leaky_relu(x, 0.2) * SQRT2


class Dense(nn.Module):
    """Fully connected layer with equalised learning rate.

    Parameters
    ----------
    lr_multiplier : float
        Scale of weight and bias at run time; the stored weight is divided by it.
    activate : bool
        Apply `lrelu`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        lr_multiplier: float = 1.0,
        bias: float = 0.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier
        self.activate = activate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs) to (B, outputs)."""
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return lrelu(x) if self.activate else x


def minibatch_std(x: torch.Tensor, group: int) -> torch.Tensor:
    """Append one channel with the standard deviation over groups of the batch.

    arXiv:1710.10196, section 3. The group is the largest divisor of the batch
    that is at most `group`.
    """
    batch, channels, height, width = x.shape
    group = next(size for size in range(min(group, batch), 0, -1) if batch % size == 0)
    y = x.reshape(group, -1, channels, height, width)
    y = (y - y.mean(dim=0)).square().mean(dim=0)
    y = (y + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, y.repeat(group)[:, None, None, None].expand(-1, 1, height, width)], dim=1)
