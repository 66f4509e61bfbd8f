"""StyleGAN2: mapping network, skip generator, residual discriminator.

Karras et al. 2020 (arXiv:1912.04958). Any power-of-two size from 8, any number
of channels. Latents are called z, w and w_plus (one w per layer).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from sunpipe.models.ops import (
    Blur,
    Conv,
    Dense,
    ModulatedConv,
    lrelu,
    minibatch_std,
    normalize_2nd_moment,
)
from sunpipe.train_settings import ModelSettings


def resolutions(resolution: int) -> list[int]:
    """4, 8, ... `resolution`; a size that is no power of two from 8 is refused."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution {resolution} is not a power of two of at least 8")
    return [2**power for power in range(2, int(math.log2(resolution)) + 1)]


def width(resolution: int, settings: ModelSettings) -> int:
    """Feature maps at one resolution: ``min(channel_base / resolution, channel_max)``."""
    return max(min(settings.channel_base // resolution, settings.channel_max), 1)


class Mapping(nn.Module):
    """z to w: fully connected layers with a hundredth of the learning rate."""

    w_avg: torch.Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        sizes = [settings.z_dim] + [settings.w_dim] * settings.mapping_layers
        self.layers = nn.ModuleList(
            Dense(inputs, outputs, lr_multiplier=0.01, activate=True)
            for inputs, outputs in itertools.pairwise(sizes)
        )
        self.register_buffer("w_avg", torch.zeros(settings.w_dim))

    def forward(self, z: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
        """(B, z_dim) to (B, w_dim), truncated towards w_avg by `psi`."""
        w = normalize_2nd_moment(z)
        for layer in self.layers:
            w = layer(w)
        return w if psi == 1.0 else torch.lerp(self.w_avg, w, psi)


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU.

    `noise` in forward is ``random``, ``const`` (the stored map) or ``none``.
    """

    noise_const: torch.Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, up: bool) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias=1.0)
        self.conv = ModulatedConv(inputs, outputs, 3, up=up)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: torch.Tensor, w: torch.Tensor, noise: str) -> torch.Tensor:
        """One layer of the synthesis network."""
        x = self.conv(x, self.affine(w))
        if noise == "random":
            x = x + torch.randn_like(x[:, :1]) * self.noise_strength
        elif noise == "const":
            x = x + self.noise_const * self.noise_strength
        elif noise != "none":
            raise ValueError(f"noise {noise!r} is none of random, const, none")
        return lrelu(x + self.bias[:, None, None])


class ToImage(nn.Module):
    """Modulated 1 x 1 convolution to image channels, without demodulation."""

    def __init__(self, inputs: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Dense(w_dim, inputs, bias=1.0)
        self.conv = ModulatedConv(inputs, channels, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """Feature maps to this resolution's share of the image."""
        return self.conv(x, self.affine(w)) + self.bias[:, None, None]


class Synthesis(nn.Module):
    """w_plus to image; each resolution adds its share of the image (skip architecture)."""

    def __init__(self, resolution: int, channels: int, settings: ModelSettings) -> None:
        super().__init__()
        self.sizes = resolutions(resolution)
        self.channels = channels
        self.num_ws = 2 * len(self.sizes)
        self.constant = nn.Parameter(torch.randn(width(4, settings), 4, 4))
        self.first = StyledConv(width(4, settings), width(4, settings), settings.w_dim, 4, up=False)
        self.to_image = nn.ModuleList()
        self.grow, self.refine = nn.ModuleList(), nn.ModuleList()
        for size in self.sizes:
            here = width(size, settings)
            if size > 4:
                before = width(size // 2, settings)
                self.grow.append(StyledConv(before, here, settings.w_dim, size, up=True))
                self.refine.append(StyledConv(here, here, settings.w_dim, size, up=False))
            self.to_image.append(ToImage(here, channels, settings.w_dim))
        self.upsample = Blur("up", gain=4.0)

    def forward(self, w_plus: torch.Tensor, noise: str = "random") -> torch.Tensor:
        """(B, num_ws, w_dim) to (B, C, H, H) in network range."""
        ws = w_plus.unbind(dim=1)
        x = self.constant.expand(len(w_plus), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)  # faster on CPU and tensor cores
        x = self.first(x, ws[0], noise)
        image = self.to_image[0](x, ws[1])
        for level, (grow, refine) in enumerate(zip(self.grow, self.refine, strict=True)):
            x = grow(x, ws[2 * level + 1], noise)
            x = refine(x, ws[2 * level + 2], noise)
            image = self.upsample(image) + self.to_image[level + 1](x, ws[2 * level + 3])
        return image


class Generator(nn.Module):
    """Mapping and synthesis.

    Parameters
    ----------
    resolution, channels : int
        Size of the image; they come from the shards.
    settings : ModelSettings
    """

    def __init__(self, resolution: int, channels: int, settings: ModelSettings) -> None:
        super().__init__()
        self.mapping = Mapping(settings)
        self.synthesis = Synthesis(resolution, channels, settings)
        self.num_ws = self.synthesis.num_ws

    def broadcast(self, w: torch.Tensor) -> torch.Tensor:
        """(B, w_dim) to w_plus (B, num_ws, w_dim), the same w in every layer."""
        return w[:, None, :].expand(-1, self.num_ws, -1)

    def forward(self, z: torch.Tensor, psi: float = 1.0, noise: str = "random") -> torch.Tensor:
        """Images (B, C, H, H) in network range from z (B, z_dim)."""
        return self.synthesis(self.broadcast(self.mapping(z, psi)), noise)


class DiscriminatorBlock(nn.Module):
    """Two convolutions halving the size, with a residual connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = Conv(inputs, inputs, 3)
        self.down = Conv(inputs, outputs, 3, down=True)
        self.skip = Conv(inputs, outputs, 1, down=True, bias=False, activate=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        return (self.down(self.conv(x)) + self.skip(x)) * math.sqrt(0.5)


class Discriminator(nn.Module):
    """Image to logit, residual architecture with minibatch standard deviation."""

    def __init__(self, resolution: int, channels: int, settings: ModelSettings) -> None:
        super().__init__()
        sizes = resolutions(resolution)[::-1]
        self.group = settings.mbstd_group
        self.from_image = Conv(channels, width(sizes[0], settings), 1)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(width(size, settings), width(size // 2, settings))
            for size in sizes[:-1]
        )
        last = width(4, settings)
        self.conv = Conv(last + 1, last, 3)
        self.dense = Dense(last * 16, last, activate=True)
        self.out = Dense(last, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, C, H, H) in network range to logits (B,)."""
        x = self.from_image(image.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.conv(minibatch_std(x, self.group))
        return self.out(self.dense(x.flatten(1))).squeeze(1)
