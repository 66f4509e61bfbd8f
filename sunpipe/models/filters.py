"""The filter [1, 3, 3, 1] of StyleGAN2 in both axes, which keeps nothing for the gradient.

Resampling by 2 as in arXiv:1912.04958. The taps are symmetric, so the
transposed filter is the filter again: its gradient, and the gradient of that,
need neither the input nor the output.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from sunpipe.models.stripes import Stripes

Tensor = torch.Tensor
Mode = Literal["same", "up", "down"]
Padding = tuple[int, int]
TRANSPOSED: dict[Mode, Mode] = {"same": "same", "up": "down", "down": "up"}


def binomial(gain: float = 1.0) -> Tensor:
    """Taps (4, 4) whose sum is `gain`; multiples of 1/64, exact in bfloat16."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return taps[:, None] * taps[None, :] * (gain / 64)


def _filtered(x: Tensor, kernel: Tensor, mode: Mode, padding: Padding) -> Tensor:
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, 4, 4)
    if mode == "up":
        return F.conv_transpose2d(x, weight, stride=2, padding=padding, groups=channels)
    stride = 2 if mode == "down" else 1
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=channels)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, mode: Mode, padding: Padding) -> Tensor:
        ctx.kernel, ctx.mode, ctx.padding = kernel, mode, padding
        return _filtered(x, kernel, mode, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return transposed(gradient, ctx.kernel, ctx.mode, ctx.padding), None, None, None


def filtered(x: Tensor, kernel: Tensor, mode: Mode, padding: Padding) -> Tensor:
    """Filter (B, C, H, W) per channel.

    Parameters
    ----------
    kernel : Tensor, shape (4, 4)
        From `binomial`; no gradient is given to it.
    mode : {"same", "up", "down"}
        ``up`` puts a zero behind every pixel first, ``down`` keeps every second
        result.
    padding : (int, int)
        Rows and columns of zeros on each side; for ``up``, rows and columns of
        the full result that are cut off.
    """
    return _Filter.apply(x, kernel, mode, padding)


def transposed(x: Tensor, kernel: Tensor, mode: Mode, padding: Padding) -> Tensor:
    """The transpose of ``filtered(..., mode, padding)``, applied to (B, C, H', W')."""
    if mode == "same":
        padding = (3 - padding[0], 3 - padding[1])
    return filtered(x, kernel, TRANSPOSED[mode], padding)


class Resample(nn.Module):
    """Double (``up``) or halve (``down``) the size of (B, C, H, W), keeping the mean."""

    kernel: Tensor

    def __init__(self, mode: Literal["up", "down"]) -> None:
        super().__init__()
        self.mode: Mode = mode
        self.register_buffer("kernel", binomial(4.0 if mode == "up" else 1.0), persistent=False)

    def forward(self, x: Tensor, stripes: Stripes | None = None) -> Tensor:
        """(B, C, H, W) to (B, C, 2 H, 2 W) or (B, C, H / 2, W / 2), of whole images or own rows."""
        if stripes is not None:
            return stripes.apply(self, x, 1 if self.mode == "up" else 2)
        return filtered(x, self.kernel, self.mode, (1, 1))
