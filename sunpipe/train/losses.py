"""Losses of StyleGAN2 training, each a function of logits or images.

Non-saturating loss from arXiv:1406.2661, R1 from arXiv:1801.04406 (eq. 9),
path length from arXiv:1912.04958 (eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Non-saturating: mean softplus(-D(fake))."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Mean softplus(D(fake)) + mean softplus(-D(real))."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def r1_penalty(
    discriminator: Callable[[torch.Tensor], torch.Tensor], real: torch.Tensor
) -> torch.Tensor:
    """Mean squared norm of dD/dx at real images, without the factor gamma / 2."""
    real = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(
    synthesis: Callable[[torch.Tensor], torch.Tensor], w_plus: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Norm of J^T y per sample, y white noise scaled by 1 / sqrt(H W).

    Parameters
    ----------
    w_plus : Tensor, shape (B, num_ws, w_dim)
        Part of a graph from the mapping network, so that the penalty trains it too.
    noise : Tensor, shape (B, C, H, W)
        Standard normal.

    Returns
    -------
    Tensor, shape (B,)
        Root mean over layers of the squared norms.
    """
    image = synthesis(w_plus)
    target = noise / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * target).sum(), w_plus, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
