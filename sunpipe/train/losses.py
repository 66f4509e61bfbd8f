"""Losses of StyleGAN2 training, each a function of logits or images.

Non-saturating loss from arXiv:1406.2661 (section 3), hinge loss from
arXiv:1705.02894 (section 3) in the form of arXiv:1802.05957 (eqs. 16 and 17),
relativistic average from arXiv:1807.00734 (section 4.3), relativistic pairing
from the same paper (section 4.1) as in R3GAN (arXiv:2501.05441, eq. 2), R1 and R2
from arXiv:1801.04406 (eqs. 9 and 10), path length from arXiv:1912.04958 (eq. 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from sunpipe.models.modulated import without_weight_gradients

Tensor = torch.Tensor
Mean = Callable[[Tensor], Tensor]
Kind = Literal["nonsaturating", "hinge", "relativistic_average", "relativistic_pair"]
DLoss = Callable[[Tensor, Tensor], Tensor]
GLoss = Callable[[Tensor, "Tensor | None"], Tensor]


def nonsaturating_g(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Non-saturating: mean softplus(-D(fake)); D(real) does not count."""
    return F.softplus(-fake_logits).mean()


def nonsaturating_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean softplus(D(fake)) + mean softplus(-D(real))."""
    return F.softplus(fake_logits).mean() + F.softplus(-real_logits).mean()


def _hinge_d(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def _hinge_g(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
    return -fake_logits.mean()


def _needed(real_logits: Tensor | None) -> Tensor:
    if real_logits is None:
        raise ValueError("a relativistic loss of G needs D(real)")
    return real_logits


def _above_average(better: Tensor, worse: Tensor, mean: Mean) -> Tensor:
    """Demand that `better` lies above the mean of `worse`, and `worse` below that of `better`."""
    # One exchange for both means: ranks meet once forward, once backward.
    bars = mean(torch.stack((better.mean(), worse.mean())))
    return F.softplus(bars[1] - better).mean() + F.softplus(worse - bars[0]).mean()


def _above_partner(better: Tensor, worse: Tensor) -> Tensor:
    if better.shape != worse.shape:
        raise ValueError(
            "relativistic_pair pairs each real image with a generated one:"
            f" logits of shapes {tuple(better.shape)} and {tuple(worse.shape)}"
        )
    return F.softplus(worse - better).mean()


def needs_real(kind: Kind) -> bool:
    """Whether G's loss of this kind needs D's logits of real images."""
    return kind.startswith("relativistic")


def adversarial(kind: Kind, mean: Mean) -> tuple[DLoss, GLoss]:
    """Losses of D and of G.

    With f = softplus, r = D(real), g = D(fake) and bars for means over all ranks:

    ====================  =======================================  ======================
    kind                  loss of D                                loss of G
    ====================  =======================================  ======================
    nonsaturating         E f(-r) + E f(g)                         E f(-g)
    hinge                 E relu(1 - r) + E relu(1 + g)            -E g
    relativistic_average  E f(-(r - bar g)) + E f(g - bar r)       the same, r and g swapped
    relativistic_pair     E f(-(r_i - g_i))                        E f(-(g_i - r_i))
    ====================  =======================================  ======================

    Parameters
    ----------
    kind : {"nonsaturating", "hinge", "relativistic_average", "relativistic_pair"}
    mean : callable
        Mean over ranks of a tensor, differentiable: `sunpipe.train.means.mean_over_ranks`.

    Returns
    -------
    d_loss : callable
        ``d_loss(real_logits, fake_logits)``, the share of this rank's samples.
    g_loss : callable
        ``g_loss(fake_logits, real_logits)``; D(real) may be None unless `needs_real`.

    Notes
    -----
    Losses of ranks are to be averaged, as gradients are. With gradients
    accumulated over passes, a bar is the mean over one pass of all ranks: the
    other passes are not in memory.
    """
    match kind:
        case "nonsaturating":
            return nonsaturating_d, nonsaturating_g
        case "hinge":
            return _hinge_d, _hinge_g
        case "relativistic_average":
            return (
                lambda real, fake: _above_average(real, fake, mean),
                lambda fake, real: _above_average(fake, _needed(real), mean),
            )
        case "relativistic_pair":
            return _above_partner, lambda fake, real: _above_partner(fake, _needed(real))
    raise ValueError(f"unknown loss {kind!r}")


def r1_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Mean squared norm of dD/dx at `images`, without the factor gamma / 2.

    R1 at real images, R2 at generated ones (arXiv:1801.04406, eqs. 9 and 10);
    the gradient ends at the images, it does not reach what generated them.

    Parameters
    ----------
    discriminator : callable
        (B, C, H, W) to logits (B,).
    images : Tensor, (B, C, H, W)
    """
    images = images.detach().requires_grad_(True)
    with without_weight_gradients():
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(synthesis: Callable[[Tensor], Tensor], w_plus: Tensor, noise: Tensor) -> Tensor:
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
    with without_weight_gradients():  # nobody asks for them here, and they cost a third
        (gradient,) = torch.autograd.grad((image * target).sum(), w_plus, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
