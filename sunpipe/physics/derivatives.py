"""Elementwise functions whose gradient stays finite where the function has a corner."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def root(squares: Tensor) -> Tensor:
    """Square root of what is not negative; gradient 0 where it is 0.

    The derivative of a square root at 0 is infinite, and an infinity times the 0
    of a pixel that does not count is NaN for the whole image.
    """
    if not squares.requires_grad:
        return squares.sqrt()
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
