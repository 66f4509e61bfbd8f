"""DiffAugment: differentiable augmentation of real and generated images.

Zhao et al. 2020 (arXiv:2006.10738). Translation by up to an eighth of the size
and a cutout of half the size, both filled with 0: for magnetograms that is
0 G, the quiet Sun. Colour jitter is not offered, because a field in gauss has
no brightness to change.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def translate(x: torch.Tensor, share: float = 0.125) -> torch.Tensor:
    """Shift each (C, H, W) by up to `share` of its size, whole pixels, zero fill."""
    batch, _, height, width = x.shape
    up, left = int(height * share + 0.5), int(width * share + 0.5)
    dy = torch.randint(-up, up + 1, (batch, 1), device=x.device)
    dx = torch.randint(-left, left + 1, (batch, 1), device=x.device)
    rows = torch.arange(height, device=x.device)[None] + dy + up
    columns = torch.arange(width, device=x.device)[None] + dx + left
    padded = F.pad(x, (left, left, up, up))
    each = torch.arange(batch, device=x.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def cutout(x: torch.Tensor, share: float = 0.5) -> torch.Tensor:
    """Set a square of `share` of the size to 0, its centre anywhere in the image."""
    batch, _, height, width = x.shape
    tall, wide = int(height * share + 0.5), int(width * share + 0.5)
    cy = torch.randint(0, height + 1 - tall % 2, (batch, 1), device=x.device)
    cx = torch.randint(0, width + 1 - wide % 2, (batch, 1), device=x.device)
    rows = torch.arange(height, device=x.device)[None]
    columns = torch.arange(width, device=x.device)[None]
    inside_y = (rows >= cy - tall // 2) & (rows < cy - tall // 2 + tall)
    inside_x = (columns >= cx - wide // 2) & (columns < cx - wide // 2 + wide)
    keep = ~(inside_y[:, :, None] & inside_x[:, None, :])
    return x * keep[:, None].to(x.dtype)


AUGMENTATIONS = {"translation": translate, "cutout": cutout}


def diffaugment(x: torch.Tensor, policy: Sequence[str]) -> torch.Tensor:
    """Apply the named augmentations in order; random numbers from torch's global source."""
    for name in policy:
        x = AUGMENTATIONS[name](x)
    return x
