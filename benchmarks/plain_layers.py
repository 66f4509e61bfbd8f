"""StyleGAN2's layers as others write them, to measure ours against.

``grouped``: equations 1 and 3 of arXiv:1912.04958 taken literally, one modulated
weight per sample and a convolution in as many groups, as most re-implementations
do. ``scaled``: the activations are scaled instead, each step an operation of its
own, as the original code does while training. In both the filter is upfirdn:
zeros put between pixels, padding, one filter, every second pixel kept.

The networks, their parameters and their results are ours: only the two functions
that compute a layer are replaced while a formulation is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.functional as F

from sunpipe.models import filters, geometry, layers
from sunpipe.models.modulated import Layer

Tensor = torch.Tensor
Formulation = Literal["ours", "grouped", "scaled"]


def upfirdn(x: Tensor, kernel: Tensor, mode: str, padding: tuple[int, int]) -> Tensor:
    """Filter (B, C, H, W) per channel; same arguments as `sunpipe.models.filters.filtered`."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, width)
    if mode == "up":
        wide = x.reshape(batch * channels, 1, height, 1, width, 1)
        wide = F.pad(wide, (0, 1, 0, 0, 0, 1))
        x = wide.reshape(batch * channels, 1, 2 * height, 2 * width)
        x = x[:, :, :-1, :-1]  # a zero between pixels, none behind the last
        padding = (3 - padding[0], 3 - padding[1])
    rows, columns = padding
    x = F.conv2d(F.pad(x, (columns, columns, rows, rows)), kernel.to(x.dtype)[None, None])
    if mode == "down":
        x = x[:, :, ::2, ::2]
    return x.reshape(batch, channels, *x.shape[2:])


def _convolve(
    x: Tensor, weight: Tensor, kernel: Tensor | None, at: geometry.Geometry, groups: int = 1
) -> Tensor:
    if at.mode == "up":
        assert kernel is not None
        # (groups * O, I, K, K) to (groups * I, O, K, K)
        split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
        turned = split.reshape(-1, *split.shape[2:])
        x = F.conv_transpose2d(x, turned, stride=2, padding=at.padding, groups=groups)
        return upfirdn(x, kernel, at.filter_mode, at.filter_padding)
    if at.mode == "down":
        assert kernel is not None
        x = upfirdn(x, kernel, at.filter_mode, at.filter_padding)
    return F.conv2d(x, weight, stride=at.stride, padding=at.padding, groups=groups)


def _layer(
    grouped: bool, x: Tensor, weight: Tensor, layer: Layer, *, bias: Tensor | None = None,
    style: Tensor | None = None, scale: Tensor | None = None, strength: Tensor | None = None,
    noise: Any = None, kernel: Tensor | None = None, stripes: None = None,
) -> Tensor:  # fmt: skip
    assert stripes is None
    weight, batch = weight * layer.gain, len(x)
    if grouped and style is not None:
        each = weight[None] * style[:, None, :, None, None]
        if scale is not None:
            each = each * scale[:, :, None, None, None]
        flat = x.reshape(1, -1, *x.shape[2:])
        u = _convolve(flat, each.flatten(0, 1).to(x.dtype), kernel, layer.at, batch)
        u = u.reshape(batch, -1, *u.shape[2:])
    else:
        if style is not None:
            x = x * style[:, :, None, None].to(x.dtype)
        u = _convolve(x, weight.to(x.dtype), kernel, layer.at)
        if scale is not None:
            u = u * scale[:, :, None, None].to(u.dtype)
    u = u.to(layer.dtype or u.dtype)
    if noise is not None and strength is not None:
        u = u + (noise() * strength).to(u.dtype)
    if bias is not None:
        u = u + bias[:, None, None].to(u.dtype)
    if layer.slope != 1.0:
        u = F.leaky_relu(u, layer.slope)
    return u.clamp(-layer.clamp, layer.clamp) if layer.clamp else u


@contextmanager
def formulation(name: Formulation) -> Iterator[None]:
    """Networks made by sunpipe compute their layers in this way inside."""
    if name == "ours":
        yield
        return

    def layer(*args: Any, **kwargs: Any) -> Tensor:
        return _layer(name == "grouped", *args, **kwargs)

    with (
        patch.object(layers, "convolution_layer", layer),
        patch.object(filters, "filtered", upfirdn),
    ):
        yield
