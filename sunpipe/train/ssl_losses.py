"""SimSiam's loss, and how close its outputs are to being all the same."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity, normalize

Tensor = torch.Tensor


def simsiam_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> Tensor:
    """Symmetric negative cosine, gradients stopped at the projections.

    ``L = D(p1, stop(z2)) / 2 + D(p2, stop(z1)) / 2`` with ``D(p, z) = -cos(p, z)``
    (Chen and He 2020, arXiv 2011.10566, equations 1 to 4). Without the stop the
    outputs collapse to a constant.

    Parameters
    ----------
    p1, p2, z1, z2 : Tensor, (B, d)
        Predictions and projections of the two views.

    Returns
    -------
    Tensor, ()
        Between -1 (views agree) and 1.
    """
    one = cosine_similarity(p1, z2.detach(), dim=1).mean()
    two = cosine_similarity(p2, z1.detach(), dim=1).mean()
    return -(one + two) / 2


def collapse_level(z: Tensor) -> Tensor:
    """0 when the normalised outputs fill the sphere evenly, 1 when all are the same.

    ``max(0, 1 - sqrt(d) * mean std)`` over the batch: an isotropic distribution on
    the unit sphere has a standard deviation of 1/sqrt(d) per coordinate
    (arXiv 2011.10566, section 4.1).

    Parameters
    ----------
    z : Tensor, (B, d)
    """
    spread = normalize(z.detach(), dim=1).std(dim=0, unbiased=False).mean()
    return torch.clamp(1 - z.shape[1] ** 0.5 * spread, min=0)
