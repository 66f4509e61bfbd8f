"""Layers of StyleGAN2 in plain PyTorch, twice differentiable, no compiled plugins.

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


def _binomial(gain: float) -> torch.Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = taps[:, None] * taps[None, :]
    return kernel * (gain / kernel.sum())


class Blur(nn.Module):
    """Filter [1, 3, 3, 1] in both axes, per channel; optionally resampling by 2.

    Parameters
    ----------
    mode : str
        ``same`` pads by `padding`; ``up`` doubles the size; ``down`` halves it.
    gain : float
        Sum of the kernel: 4 after zero insertion keeps the mean.
    padding : int
        Zero padding on each side for ``same``.
    """

    kernel: torch.Tensor

    def __init__(self, mode: str, gain: float = 1.0, padding: int = 0) -> None:
        super().__init__()
        self.mode, self.padding = mode, padding
        self.register_buffer("kernel", _binomial(gain), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter (B, C, H, W)."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        if self.mode == "up":
            return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)
        if self.mode == "down":
            return F.conv2d(x, weight, stride=2, padding=1, groups=channels)
        return F.conv2d(x, weight, padding=self.padding, groups=channels)


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


class Conv(nn.Module):
    """Convolution with equalised learning rate, optionally halving the size.

    Downsampling filters first, then strides, as in the StyleGAN2 discriminator.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        down: bool = False,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1.0 / math.sqrt(inputs * size * size)
        self.size, self.activate = size, activate
        self.blur: Blur | None = None
        if down:
            self.blur = Blur("down") if size == 1 else Blur("same", padding=2)
        self.stride = 2 if down and size > 1 else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W) or half of it."""
        padding = self.size // 2
        if self.blur is not None:
            x, padding = self.blur(x), 0
        x = F.conv2d(x, self.weight * self.gain, self.bias, stride=self.stride, padding=padding)
        return lrelu(x) if self.activate else x


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style, with demodulation.

    Modulating the weights (eq. 1 of arXiv:1912.04958) equals scaling the input
    channels, convolving with shared weights and scaling the output channels by
    the demodulation factor (eq. 3): one convolution for the whole batch instead
    of one group per sample.

    Parameters
    ----------
    up : bool
        Double the size: transposed convolution, then the [1, 3, 3, 1] filter.
    demodulate : bool
        Off in the layers that make the image.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, up: bool = False, demodulate: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.gain = 1.0 / math.sqrt(inputs * size * size)
        self.size, self.demodulate = size, demodulate
        self.blur = Blur("same", gain=4.0, padding=1) if up else None

    def forward(self, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """Convolve (B, inputs, H, W) under a style (B, inputs)."""
        weight = self.weight * self.gain
        x = x * style[:, :, None, None]
        if self.blur is not None:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            x = F.conv2d(x, weight, padding=self.size // 2)
        if self.demodulate:
            energy = weight.square().sum(dim=(2, 3))
            scale = (style.square() @ energy.t() + 1e-8).rsqrt()
            x = x * scale[:, :, None, None]
        return x


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
