"""w_plus to image: the synthesis network of StyleGAN2.

The three architectures of figure 7 of arXiv:1912.04958: ``skip`` sums an image
over the resolutions, ``residual`` adds a shortcut around each block, ``orig``
has neither.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from sunpipe.models.filters import Resample
from sunpipe.models.layers import (
    Compute,
    Conv,
    Noise,
    StyledConv,
    ToImage,
    resolutions,
    width,
)
from sunpipe.models.noise import SampleNoise
from sunpipe.models.stripes import Stripes, check, moved
from sunpipe.train_settings import ComputeSettings, ModelSettings

Tensor = torch.Tensor
NoiseChoice = Literal["const", "none", "random"] | SampleNoise


class SynthesisBlock(nn.Module):
    """One resolution: a doubling and a plain convolution (at 4 x 4 only the plain one).

    Its first layer takes w number ``2 level - 1`` of w_plus, where level counts
    the doublings; its share of the image takes the w that the next resolution
    begins with.
    """

    def __init__(
        self, resolution: int, channels: int, last: bool, settings: ModelSettings,
        compute: Compute,
    ) -> None:  # fmt: skip
        super().__init__()
        level = round(math.log2(resolution)) - 2
        here, self.compute = width(resolution, settings), compute
        self.grow: StyledConv | None = None
        self.shortcut: Conv | None = None
        self.to_image: ToImage | None = None
        if level:
            before = width(resolution // 2, settings)
            self.grow = StyledConv(
                before, here, resolution, 2 * level - 1, settings, compute, up=True
            )
            if settings.g_architecture == "residual":
                self.shortcut = Conv(before, here, 1, compute, bias=False, activate=False)
        self.refine = StyledConv(here, here, resolution, 2 * level, settings, compute)
        if last or settings.g_architecture == "skip":
            self.to_image = ToImage(here, channels, 2 * level + 1, settings, compute)
        self.upsample = Resample("up")

    def forward(
        self, x: Tensor, image: Tensor | None, w_plus: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        """Features and image of half the size to those of this size."""
        return self.compute.run("block", self._forward, x, image, w_plus, noise)

    def _forward(
        self, x: Tensor, image: Tensor | None, w_plus: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        before = x = self.compute.cast(x, self.refine.weight)
        if self.grow is not None:
            x = self.grow(x, w_plus, noise)
        x = self.refine(x, w_plus, noise)
        if self.shortcut is not None:
            # 1 x 1 and the filter commute: at half the size it costs a quarter
            x = (x + self.upsample(self.shortcut(before), self.compute.stripes)) * math.sqrt(0.5)
        if image is not None:
            image = self.upsample(image, self.compute.stripes)
        if self.to_image is not None:
            share = self.to_image(x, w_plus)
            image = share if image is None else image + share
        return x, image


class Synthesis(nn.Module):
    """w_plus to image.

    Attributes
    ----------
    sizes : list of int
        4, 8, ... resolution; ``blocks[str(size)]`` is the block of each.
    channels : int
        Of the image.
    num_ws : int
        Layers that take a w.
    """

    def __init__(
        self, resolution: int, channels: int, model: ModelSettings,
        compute: ComputeSettings = ComputeSettings(), stripes: Stripes | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if stripes is not None:
            check(stripes.count, compute.stripes_from, resolution)
        self.sizes = resolutions(resolution)
        self.channels = channels
        self.num_ws = 2 * len(self.sizes)
        self.constant = nn.Parameter(torch.randn(width(4, model), 4, 4))
        self.blocks = nn.ModuleDict(
            {
                str(size): SynthesisBlock(
                    size, channels, size == resolution, model, Compute(size, compute, stripes)
                )
                for size in self.sizes
            }
        )

    def forward(self, w_plus: Tensor, noise: NoiseChoice = "random") -> Tensor:
        """(B, num_ws, w_dim) to (B, C, H, H) in network range.

        Parameters
        ----------
        noise : {"random", "const", "none"} or SampleNoise
            Drawn from torch's random source, the stored maps, none, or drawn from
            the seeds of the samples.

        Raises
        ------
        ValueError
            Another word for `noise`.
        """
        known = resolved_noise(noise, len(w_plus))
        x = self.constant.expand(len(w_plus), -1, -1, -1)
        image: Tensor | None = None
        stripes: Stripes | None = None
        for block in self.blocks.values():
            assert isinstance(block, SynthesisBlock)
            before, stripes = stripes, block.compute.stripes
            x, image = moved(x, before, stripes), moved(image, before, stripes)
            x, image = block(x, image, w_plus, known)
        image = moved(image, stripes, None)
        assert image is not None
        return image


def resolved_noise(noise: NoiseChoice, batch: int) -> Noise:
    """Replace ``random`` by seeds from torch's random source."""
    if noise == "random":
        # on the CPU, so that a GPU need not be waited for
        seeds = torch.randint(2**63 - 1, (batch,), device="cpu").tolist()
        return SampleNoise(tuple(seeds))
    if isinstance(noise, SampleNoise):
        if len(noise.seeds) != batch:
            raise ValueError(f"noise for {len(noise.seeds)} samples, but a batch of {batch}")
        return noise
    if noise not in ("const", "none"):
        raise ValueError(f"noise {noise!r} is none of random, const, none")
    return noise
