"""Convolutions of StyleGAN2 as linear maps of the image, and their transposes.

A convolution keeps the size, doubles it (transposed convolution with a step of
2, then the filter) or halves it (the filter, then a convolution with a step of
2), arXiv:1912.04958, section 2 and appendix B. All in operations of torch that
can be differentiated twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sunpipe.models.filters import Mode, filtered, transposed

Tensor = torch.Tensor


class Geometry(NamedTuple):
    """Which pixels a convolution joins.

    Attributes
    ----------
    mode : {"same", "up", "down"}
        ``up`` is for kernels of 3.
    size : int
        1 or 3, side of the kernel.
    """

    mode: Mode = "same"
    size: int = 3

    @property
    def padding(self) -> int:
        """Of the convolution itself; the filter brings its own."""
        return self.size // 2 if self.mode == "same" else 0

    @property
    def stride(self) -> int:
        """Step of the convolution: 1 x 1 halving takes its step in the filter."""
        return 1 if self.mode == "same" or self.size == 1 else 2

    @property
    def filter_padding(self) -> tuple[int, int]:
        """Rows and columns of the filter."""
        pixels = 2 if self.mode == "down" and self.size == 3 else 1
        return pixels, pixels

    @property
    def filter_mode(self) -> Mode:
        """The filter before a 1 x 1 convolution takes the step of 2."""
        return "down" if self.mode == "down" and self.size == 1 else "same"


def convolve(
    x: Tensor, weight: Tensor, kernel: Tensor | None, at: Geometry, bias: Tensor | None = None
) -> Tensor:
    """Convolve (B, I, H, W) with (O, I, K, K).

    Parameters
    ----------
    kernel : Tensor, shape (4, 4), or None
        Taps of the filter (sum 4 for ``up``, 1 for ``down``), none for ``same``.
    bias : Tensor, shape (O,), optional
        Added; not with ``up``.
    """
    if at.mode == "up":
        assert bias is None
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=at.padding)
        return _filter(x, kernel, at)
    if at.mode == "down":
        x = _filter(x, kernel, at)
    return F.conv2d(x, weight, bias, stride=at.stride, padding=at.padding)


def transpose(gradient: Tensor, weight: Tensor, kernel: Tensor | None, at: Geometry) -> Tensor:
    """Transpose of `convolve` in x: the gradient of the result to that of x."""
    if at.mode == "up":
        gradient = _unfilter(gradient, kernel, at)
        return F.conv2d(gradient, weight.transpose(0, 1), stride=2, padding=at.padding)
    x = F.conv_transpose2d(gradient, weight, stride=at.stride, padding=at.padding)
    return _unfilter(x, kernel, at) if at.mode == "down" else x


def weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, kernel: Tensor | None, at: Geometry
) -> Tensor:
    """Gradient of `weight` (whose values are not used), from that of the result."""
    up = at.mode == "up"
    if up:
        gradient, weight = _unfilter(gradient, kernel, at), weight.transpose(0, 1)
    elif at.mode == "down":
        x = _filter(x, kernel, at)
    _, found, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight.detach(), None, [at.stride] * 2, [at.padding] * 2, [1, 1], up, [0, 0],
        1, [False, True, False],
    )  # fmt: skip
    return found.transpose(0, 1) if up else found


def _filter(x: Tensor, kernel: Tensor | None, at: Geometry) -> Tensor:
    assert kernel is not None
    return filtered(x, kernel, at.filter_mode, at.filter_padding)


def _unfilter(x: Tensor, kernel: Tensor | None, at: Geometry) -> Tensor:
    assert kernel is not None
    return transposed(x, kernel, at.filter_mode, at.filter_padding)
