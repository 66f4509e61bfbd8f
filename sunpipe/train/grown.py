"""What the layers of a new, higher resolution start as: they change nothing at first.

Growing keeps the function (Net2Net, arXiv:1511.05641), which is where the fade-in
of a growing GAN begins (arXiv:1710.10196, figure 2 at alpha = 0): the new G gives
the old image, enlarged, and the new D sees the new image as the old D saw it, after
the network's own filter has halved it. Both hold to rounding, and both learn from
the first step: only layers whose inputs are not zero are zero.

An image passes through convolutions with a leaky ReLU unchanged as the difference
of two feature maps, since ``f(x) - f(-x) = 1.2 sqrt(2) x`` for
``f(x) = sqrt(2) lrelu(x)``; it takes two feature maps per channel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]
Names = tuple[str, ...]
SQRT2 = math.sqrt(2.0)
PAIR = 1.2 * SQRT2  # f(x) - f(-x) over x, with a slope of 0.2 below zero
BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def size_of(name: str) -> int:
    """Resolution in a name like ``blocks.64.conv``; what is in no block works at 4 x 4."""
    found = BLOCK.search(name)
    return int(found[1]) if found else 4


def new_sizes(ours: Tensors, resolution: int) -> list[int]:
    """Sizes above `resolution` that a network has blocks for, the largest first."""
    sizes = {size_of(name) for name in ours}
    return sorted((size for size in sizes if size > resolution), reverse=True)


def start_generator(ours: Tensors, given: Tensors, resolution: int) -> Names:
    """Set the image's share of each new resolution to zero, in place.

    That is possible where the image is a sum over resolutions (skip); in the other
    architectures the only layer that makes the image is new, and stays at random.

    Returns
    -------
    tuple of str
        The tensors that were set.
    """
    new = new_sizes(ours, resolution)
    last = f"synthesis.blocks.{resolution}.to_image.weight"
    if not new or last not in ours or last not in given:
        return ()
    names = tuple(f"synthesis.blocks.{size}.to_image.{part}" for size in new
                  for part in ("weight", "bias"))  # fmt: skip
    for name in names:
        ours[name].zero_()
    return names


def start_discriminator(ours: Tensors, given: Tensors, resolution: int) -> Names:
    """Let the new blocks hand on the image, filtered and halved, in place.

    In the skip architecture, where each block reads the image, what the new ones
    hand on is zero. In the others the last of them gives what the source's first
    layer gave; with fewer than two feature maps per channel it cannot, and stays
    at random.

    Returns
    -------
    tuple of str
        The tensors that were set.
    """
    new = new_sizes(ours, resolution)
    reader = f"blocks.{resolution}.from_image"
    if not new or f"{reader}.weight" not in given:
        return ()
    if f"{reader}.weight" in ours:
        names = tuple(f"blocks.{size}.shrink.{part}" for size in new for part in ("weight", "bias"))
        for name in names:
            ours[name].zero_()
        return names
    weight, bias = given[f"{reader}.weight"], given[f"{reader}.bias"]
    channels = weight.shape[1]
    if any(len(ours[f"blocks.{size}.conv.weight"]) < 2 * channels for size in new):
        return ()
    same = torch.eye(channels, dtype=torch.float64)
    both = torch.cat([same, -same])
    changed = [*_set(ours, f"blocks.{new[0]}.from_image", both, _no_bias(channels))]
    for size in new:
        block = f"blocks.{size}"
        changed += _set(ours, f"{block}.conv", _pairs(both), _no_bias(channels))
        last = size == new[-1]
        matrix = _effective(weight) if last else both
        shift = bias.double() if last else _no_bias(channels)
        if f"{block}.shortcut.weight" in ours:  # the sum of both is divided by sqrt(2)
            matrix, shift = SQRT2 * matrix, SQRT2 * shift
            ours[f"{block}.shortcut.weight"].zero_()
            changed.append(f"{block}.shortcut.weight")
        changed += _set(ours, f"{block}.shrink", _pairs(matrix), shift)
    return tuple(changed)


def _no_bias(channels: int) -> torch.Tensor:
    """Bias of the two feature maps of each channel."""
    return torch.zeros(2 * channels, dtype=torch.float64)


def _effective(weight: torch.Tensor) -> torch.Tensor:
    """Matrix (outputs, inputs) that a stored 1 x 1 weight stands for."""
    return weight[:, :, 0, 0].double() / math.sqrt(weight.shape[1])


def _pairs(matrix: torch.Tensor) -> torch.Tensor:
    """Matrix on feature maps that come in pairs, from one on the channels."""
    return torch.cat([matrix, -matrix], dim=1) / PAIR


def _set(ours: Tensors, layer: str, matrix: torch.Tensor, bias: torch.Tensor) -> Names:
    """Make the first outputs of a convolution `matrix` on the first inputs, at its centre."""
    stored, (rows, columns) = ours[f"{layer}.weight"], matrix.shape
    middle = stored.shape[2] // 2
    stored[:rows] = 0.0
    # weights are stored with unit variance and scaled when used (arXiv:1710.10196, 4.1)
    scale = math.sqrt(stored[0].numel())
    stored[:rows, :columns, middle, middle] = (matrix * scale).to(stored)
    ours[f"{layer}.bias"][:rows] = bias.to(stored)
    return f"{layer}.weight", f"{layer}.bias"
