"""A small residual encoder of field patches."""

from __future__ import annotations

import math

import torch
from torch import nn

Tensor = torch.Tensor
SMALLEST = 16


def stage_widths(resolution: int, width: int, dim: int) -> list[int]:
    """Channels of each stage: doubling from `width` to at most `dim`, the last is `dim`.

    The stem and every stage halve the image; the last ends at 4 x 4.

    Raises
    ------
    ValueError
        When `resolution` is no power of two or under 16.
    """
    stages = round(math.log2(max(resolution, 1))) - 3
    if resolution < SMALLEST or 2 ** (stages + 3) != resolution:
        raise ValueError(f"the encoder takes powers of two from {SMALLEST}, not {resolution}")
    return [min(width * 2**stage, dim) for stage in range(stages - 1)] + [dim]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a 1 x 1 shortcut; halves height and width.

    Batch norm, not group norm: dividing each patch by its own spread would hide
    how strong its field is, which is what a search must see.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H/2, W/2)."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        # The average keeps what a strided shortcut would skip.
        rest = self.norm0(self.shortcut(nn.functional.avg_pool2d(x, 2)))
        return torch.relu(y + rest)


class Encoder(nn.Module):
    """Patches (B, `channels`, `resolution`, `resolution`) to features (B, `dim`).

    Parameters
    ----------
    channels, resolution : int
        Of the shards; `resolution` is a power of two from 16.
    width : int
        Channels of the first stage.
    dim : int
        Length of the feature vector: the last stage, averaged over the image.
    """

    def __init__(self, channels: int, resolution: int, width: int, dim: int) -> None:
        super().__init__()
        widths = stage_widths(resolution, width, dim)
        self.channels, self.resolution, self.dim = channels, resolution, dim
        # Overlapping kernels at a step of 2: stages at the full size took two thirds of the time.
        self.stem = nn.Conv2d(channels, widths[0], 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        steps = zip([widths[0], *widths[:-1]], widths, strict=True)
        self.stages = nn.Sequential(*(ResidualBlock(old, new) for old, new in steps))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised fields to features; other shapes are refused.

        Raises
        ------
        ValueError
            When channels or size are not the ones this encoder was made for.
        """
        wanted = (self.channels, self.resolution, self.resolution)
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(f"the encoder takes (B, {wanted}), not {tuple(x.shape)}")
        x = x.contiguous(memory_format=torch.channels_last)
        return self.stages(torch.relu(self.norm(self.stem(x)))).mean(dim=(2, 3))
