"""Layers with parameters: styled and plain convolutions, shares of the image.

Karras et al. 2020 (arXiv:1912.04958); equalised learning rate as in
arXiv:1710.10196: weights are stored with unit variance and scaled when used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sunpipe.models.filters import binomial
from sunpipe.models.geometry import Geometry
from sunpipe.models.modulated import Layer, NoiseMap, convolution_layer
from sunpipe.models.noise import SampleNoise
from sunpipe.models.ops import SQRT2, Dense
from sunpipe.models.stripes import Stripes
from sunpipe.train_settings import ComputeSettings, ModelSettings

Tensor = torch.Tensor
Noise = Literal["const", "none"] | SampleNoise


def resolutions(resolution: int) -> list[int]:
    """4, 8, ... `resolution`; a size that is no power of two from 8 is refused."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution {resolution} is not a power of two of at least 8")
    return [2**power for power in range(2, int(math.log2(resolution)) + 1)]


def width(resolution: int, settings: ModelSettings) -> int:
    """Feature maps at one resolution: ``channel_base / resolution`` within its bounds."""
    return min(max(settings.channel_base // resolution, settings.channel_min), settings.channel_max)


class Compute:
    """How the layers of one resolution are computed.

    Attributes
    ----------
    again : {"none", "block", "conv"}
        What keeps its input only, and is computed again in the backward pass.
        Counted at 1024 in float32, GiB per image of G, D, D with the graph of R1
        and G with that of path length: none 0.62, 0.62, 1.28, 2.27; block 0.13,
        0.14, 1.28, 2.39, and the largest block while it is computed again; conv
        0.62, 0.50, 1.65, 1.88. A penalty's graph holds what was computed again.
    memory_format : torch.memory_format
    stripes : Stripes or None
        Of features at this resolution.
    """

    def __init__(
        self, resolution: int, settings: ComputeSettings, stripes: Stripes | None = None
    ) -> None:
        self.stripes = stripes if resolution >= settings.stripes_from else None
        again = settings.checkpoint != "none" and resolution >= settings.checkpoint_from
        self.again = settings.checkpoint if again else "none"
        self.half = settings.precision == "bf16" and resolution >= settings.bf16_from
        self.memory_format = (
            torch.channels_last if settings.channels_last else torch.contiguous_format
        )

    def cast(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Features in bfloat16, or in the type of the parameters."""
        x = x.to(torch.bfloat16 if self.half else parameter.dtype)
        x = x.contiguous(memory_format=self.memory_format)
        if x.shape[1] == 1 and self.memory_format is torch.channels_last:
            # one channel is in both formats; its strides decide that of the result
            x = x.reshape(len(x), *x.shape[2:], 1).permute(0, 3, 1, 2)
        return x

    def run(self, what: Literal["block", "conv"], function: Callable[..., Any], *args: Any) -> Any:
        """Call `function`, kept or computed again as the settings say.

        Noise comes from seeds, so that the second time gives the same numbers.
        """
        if self.again != what or not torch.is_grad_enabled():
            return function(*args)
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


class _Convolution(nn.Module):
    """Weight, bias and filter that the layers share."""

    kernel: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, at: Geometry, compute: Compute, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, at.size, at.size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = 1.0 / math.sqrt(inputs * at.size**2)
        self.at, self.compute = at, compute
        taps = {"same": None, "up": binomial(4.0), "down": binomial()}[at.mode]
        self.register_buffer("kernel", taps, persistent=False)


class Conv(_Convolution):
    """Convolution, bias, leaky ReLU, optionally halving the size.

    Halving filters first, then strides, as in the StyleGAN2 discriminator.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, compute: Compute, *, down: bool = False,
        bias: bool = True, activate: bool = True, clamp: float = 0.0,
    ) -> None:  # fmt: skip
        at = Geometry("down" if down else "same", size)
        super().__init__(inputs, outputs, at, compute, bias=bias)
        # lrelu(SQRT2 * z) = SQRT2 * lrelu(z), so that the factor costs nothing
        self.factor = SQRT2 if activate else 1.0
        self.constants = Layer(at, self.gain * self.factor, 0.2 if activate else 1.0, clamp)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W) or half of it."""
        return self.compute.run("conv", self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.factor
        return convolution_layer(
            x,
            self.weight,
            self.constants,
            bias=bias,
            kernel=self.kernel,
            stripes=self.compute.stripes,
        )


class StyledConv(_Convolution):
    """Modulated 3 x 3 convolution, noise, bias, leaky ReLU; optionally doubling the size.

    Parameters
    ----------
    index : int
        Number of the layer, from 0: its w in w_plus and its noise.
    """

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, resolution: int, index: int, settings: ModelSettings,
        compute: Compute, *, up: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, Geometry("up" if up else "same", 3), compute)
        self.affine = Dense(settings.w_dim, inputs, bias=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(1))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.index, self.resolution = index, resolution
        self.constants = Layer(
            self.at, clamp=settings.conv_clamp, recompute=compute.again == "conv"
        )

    def noise_map(self, noise: Noise, x: Tensor) -> NoiseMap | None:
        """What gives this layer's noise, the same at every call."""
        if noise == "none":
            return None
        if noise == "const":
            return lambda: self._own(self.noise_const)
        assert isinstance(noise, SampleNoise)
        dtype = torch.promote_types(x.dtype, torch.float32)
        if x.is_meta:  # no random numbers there
            shape = len(x), 1, self.resolution, self.resolution
            return lambda: self._own(x.new_empty(shape, dtype=dtype))
        return lambda: self._own(noise(self.index, self.resolution, x.device, dtype))

    def _own(self, drawn: Tensor) -> Tensor:
        stripes = self.compute.stripes
        return drawn if stripes is None else stripes.own(drawn)

    def forward(self, x: Tensor, w_plus: Tensor, noise: Noise) -> Tensor:
        """(B, inputs, H, W) under its w of w_plus (B, num_ws, w_dim)."""
        return self.compute.run("conv", self._forward, x, w_plus[:, self.index], noise)

    def _forward(self, x: Tensor, w: Tensor, noise: Noise) -> Tensor:
        assert self.bias is not None
        style = self.affine(w) * self.gain
        energy = self.weight.square().sum(dim=(2, 3))
        scale = (style.square() @ energy.t() + 1e-8).rsqrt() * SQRT2  # eq. 3, and lrelu's factor
        return convolution_layer(
            x, self.weight, self.constants, bias=self.bias * SQRT2, style=style, scale=scale,
            strength=self.noise_strength * SQRT2, noise=self.noise_map(noise, x),
            kernel=self.kernel, stripes=self.compute.stripes,
        )  # fmt: skip


class ToImage(_Convolution):
    """Modulated 1 x 1 convolution to image channels, without demodulation; float32 comes out."""

    def __init__(
        self, inputs: int, channels: int, index: int, settings: ModelSettings, compute: Compute
    ) -> None:
        super().__init__(inputs, channels, Geometry("same", 1), compute)
        self.affine = Dense(settings.w_dim, inputs, bias=1.0)
        self.index, self.clamp = index, settings.conv_clamp

    def forward(self, x: Tensor, w_plus: Tensor) -> Tensor:
        """Feature maps to this resolution's share of the image."""
        constants = Layer(self.at, slope=1.0, clamp=self.clamp, dtype=self.weight.dtype)
        style = self.affine(w_plus[:, self.index]) * self.gain
        return convolution_layer(
            x, self.weight, constants, bias=self.bias, style=style, stripes=self.compute.stripes
        )
