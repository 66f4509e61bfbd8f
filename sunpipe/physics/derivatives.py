"""Central differences and reductions over a mask, on batches (B, H, W)."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def central(image: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x (columns) and y (rows), per pixel.

    Parameters
    ----------
    image : Tensor, (B, H, W)
        At least 3 x 3.

    Returns
    -------
    dx, dy : Tensor, (B, H, W)
        NaN on the outer one-pixel frame and beside invalid (NaN) pixels.
    """
    dx = torch.full_like(image, torch.nan)
    dy = torch.full_like(image, torch.nan)
    dx[:, 1:-1, 1:-1] = 0.5 * (image[:, 1:-1, 2:] - image[:, 1:-1, :-2])
    dy[:, 1:-1, 1:-1] = 0.5 * (image[:, 2:, 1:-1] - image[:, :-2, 1:-1])
    return dx, dy


def masked_sum(values: Tensor, where: Tensor) -> Tensor:
    """Sum over the pixels of `where` that are finite; NaN if there is none. (B, H, W) -> (B,)."""
    valid = where & values.isfinite()
    total = torch.where(valid, values, 0.0).sum(dim=(1, 2))
    return torch.where(valid.any(2).any(1), total, torch.nan)


def masked_mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean over the pixels of `where` that are finite; NaN if there is none. (B, H, W) -> (B,)."""
    return masked_sum(values, where) / (where & values.isfinite()).sum(dim=(1, 2))
