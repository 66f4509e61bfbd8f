"""Image to logit: the discriminator of StyleGAN2 with minibatch standard deviation.

The three architectures of figure 7 of arXiv:1912.04958: ``residual`` adds a
shortcut around each block, ``skip`` reads the image at every resolution,
``orig`` has neither.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from sunpipe.models.filters import Resample
from sunpipe.models.layers import Compute, Conv, resolutions, width
from sunpipe.models.ops import Dense, minibatch_std
from sunpipe.models.stripes import Stripes, check, moved
from sunpipe.train_settings import ComputeSettings, ModelSettings

Tensor = torch.Tensor


class DiscriminatorBlock(nn.Module):
    """One resolution: the image's share, a convolution, and one that halves the size."""

    def __init__(
        self, resolution: int, channels: int, first: bool, settings: ModelSettings,
        compute: Compute,
    ) -> None:  # fmt: skip
        super().__init__()
        here, after = width(resolution, settings), width(resolution // 2, settings)
        kind, clamp = settings.d_architecture, settings.conv_clamp
        self.compute = compute
        self.from_image: Conv | None = None
        self.shortcut: Conv | None = None
        if first or kind == "skip":
            self.from_image = Conv(channels, here, 1, compute, clamp=clamp)
        self.conv = Conv(here, here, 3, compute, clamp=clamp)
        self.shrink = Conv(here, after, 3, compute, down=True, clamp=clamp)
        if kind == "residual":
            self.shortcut = Conv(here, after, 1, compute, down=True, bias=False, activate=False)
        self.downsample = Resample("down") if kind == "skip" else None

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features (none before the first block) and image to those of half the size."""
        return self.compute.run("block", self._forward, x, image)

    def _forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if x is not None:
            x = self.compute.cast(x, self.conv.weight)
        x = read_image(self, x, image)
        y = self.shrink(self.conv(x))
        if self.shortcut is not None:
            y = (y + self.shortcut(x)) * math.sqrt(0.5)
        if self.downsample is None:
            return y, None
        assert image is not None
        return y, self.downsample(image, self.compute.stripes)


class Epilogue(nn.Module):
    """4 x 4: minibatch standard deviation, a convolution, a dense layer; in float32."""

    def __init__(self, channels: int, settings: ModelSettings, compute: ComputeSettings) -> None:
        super().__init__()
        here = width(4, settings)
        self.compute = Compute(4, ComputeSettings(channels_last=compute.channels_last))
        self.group = settings.mbstd_group
        self.from_image: Conv | None = None
        if settings.d_architecture == "skip":
            self.from_image = Conv(channels, here, 1, self.compute, clamp=settings.conv_clamp)
        self.conv = Conv(here + 1, here, 3, self.compute, clamp=settings.conv_clamp)
        self.dense = Dense(here * 16, here, activate=True)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """(B, width, 4, 4) to features (B, width)."""
        x = read_image(self, self.compute.cast(x, self.conv.weight), image)
        return self.dense(self.conv(minibatch_std(x, self.group)).flatten(1))


def read_image(
    block: DiscriminatorBlock | Epilogue, x: Tensor | None, image: Tensor | None
) -> Tensor:
    """Features, plus the image's share where the block reads the image."""
    if block.from_image is None:
        assert x is not None
        return x
    assert image is not None
    share = block.from_image(block.compute.cast(image, block.from_image.weight))
    return share if x is None else x + share


class Discriminator(nn.Module):
    """Image to logit.

    Parameters
    ----------
    resolution, channels : int
        Size of the image; they come from the shards.
    model : ModelSettings
    compute : ComputeSettings, optional

    Attributes
    ----------
    blocks : nn.ModuleDict
        ``blocks[str(size)]`` takes features of that size; the largest comes first.
    """

    def __init__(
        self, resolution: int, channels: int, model: ModelSettings,
        compute: ComputeSettings = ComputeSettings(), stripes: Stripes | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if stripes is not None:
            check(stripes.count, compute.stripes_from, resolution)
        sizes = resolutions(resolution)
        self.blocks = nn.ModuleDict(
            {
                str(size): DiscriminatorBlock(
                    size, channels, size == resolution, model, Compute(size, compute, stripes)
                )
                for size in sizes[:0:-1]
            }
        )
        self.epilogue = Epilogue(channels, model, compute)
        self.out = Dense(width(4, model), 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) of images (B, C, H, H), and the features (B, K) they are made of."""
        x: Tensor | None = None
        rest: Tensor | None = image
        stripes: Stripes | None = None
        for block in self.blocks.values():
            assert isinstance(block, DiscriminatorBlock)
            before, stripes = stripes, block.compute.stripes
            x, rest = moved(x, before, stripes), moved(rest, before, stripes)
            x, rest = block(x, rest)
        x, rest = moved(x, stripes, None), moved(rest, stripes, None)
        assert x is not None
        features = self.epilogue(x, rest)
        return self.out(features).squeeze(1), features

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, H) in network range to logits (B,)."""
        return self.features(image)[0]
