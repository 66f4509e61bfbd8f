"""SimSiam's, VICReg's and DINO's losses, and how near each is to giving one vector for all.

Written from the papers; values and gradients agree with lightly 1.6
(tests/unit/test_ssl_losses.py). Statistics over a batch go through `mean`, which
is the mean over ranks where there are several: the loss is then that of the
whole batch (`sunpipe.train.means`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import cosine_similarity, log_softmax, mse_loss, normalize, softmax

Tensor = torch.Tensor
Mean = Callable[[Tensor], Tensor]
EPS = 1e-4  # under VICReg's square root


def here(x: Tensor) -> Tensor:
    """The mean over ranks of one rank."""
    return x


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


def collapse_level(z: Tensor, mean: Mean = here) -> Tensor:
    """0 when the normalised outputs fill the sphere evenly, 1 when all are the same.

    ``max(0, 1 - sqrt(d) * mean std)`` over the batch: an isotropic distribution on
    the unit sphere has a standard deviation of 1/sqrt(d) per coordinate
    (arXiv 2011.10566, section 4.1).

    Parameters
    ----------
    z : Tensor, (B, d)
    """
    unit = normalize(z.detach(), dim=1)
    centred = unit - mean(unit.mean(dim=0))
    spread = mean(centred.square().mean(dim=0)).sqrt().mean()
    return torch.clamp(1 - z.shape[1] ** 0.5 * spread, min=0)


def vicreg_terms(
    z1: Tensor, z2: Tensor, world: int = 1, mean: Mean = here
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The terms of VICReg (Bardes et al. 2022, arXiv 2105.04906).

    - invariance, equation 5: mean squared difference of the two views;
    - variance, equations 1 and 2: mean over coordinates of :math:`\max(0, 1 - S)`,
      ``S = sqrt(Var + eps)``, averaged over the views;
    - covariance, equations 3 and 4: squares off the diagonal of the covariance,
      over d, summed over the views.

    Invariance and variance are means over coordinates and over views, as in the
    authors' published code, for which the weights 25, 25, 1 were chosen. Variance
    and covariance are those of the batch of all ranks; ranks exchange d x d sums
    and no outputs.

    Parameters
    ----------
    z1, z2 : Tensor, (B, d)
        Embeddings of the two views; B of each of `world` ranks.

    Returns
    -------
    invariance, variance, covariance, deviation : Tensor, ()
        `deviation` is the mean over coordinates of min(S, 1), detached.
    """
    count, length = len(z1) * world, z1.shape[1]
    off = ~torch.eye(length, dtype=torch.bool, device=z1.device)
    variance, covariance, deviation = (torch.zeros((), device=z1.device) for _ in range(3))
    for z in (z1, z2):
        centred = z - mean(z.mean(dim=0))
        matrix = mean(centred.T @ centred / len(z)) * (count / (count - 1))
        spread = (matrix.diagonal() + EPS).sqrt()
        variance = variance + torch.relu(1 - spread).mean() / 2
        covariance = covariance + matrix[off].square().sum() / length
        deviation = deviation + spread.detach().clamp(max=1).mean() / 2
    return mse_loss(z1, z2), variance, covariance, deviation


def reachable_deviation(count: int, length: int, variance: float, covariance: float) -> float:
    r"""Deviation of a coordinate at which VICReg's loss of `count` samples is least.

    Of N samples a covariance has rank :math:`r = \min(N - 1, d)`, so that for d > r not all
    coordinates can vary independently. Where it is even, with :math:`S^2` on its diagonal,
    its squares sum to :math:`d^2 S^4 / r`, and the terms that do not ask for agreement
    (arXiv 2105.04906, equations 1 to 4, both views) are
    :math:`\mu (1 - S) + 2 \nu S^4 (d / r - 1)`; least at
    :math:`S^3 = \mu / (8 \nu (d / r - 1))`, and at 1 where that is more.

    Parameters
    ----------
    count, length : int
        N of all ranks, at least 2, and d.
    variance, covariance : float
        Weights :math:`\mu` and :math:`\nu` of the terms. Without either the loss names no
        deviation, and it is 1, what equation 1 asks for.
    """
    excess = length / min(count - 1, length) - 1
    if not (variance and covariance and excess):
        return 1.0
    return float(min(1.0, (variance / (8 * covariance * excess)) ** (1 / 3)))


def dino_loss(
    teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor], center: Tensor,
    teacher_temperature: float, student_temperature: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # fmt: skip
    """Cross-entropy of the student's other view with the centred, sharpened teacher's.

    Caron et al. 2021, arXiv 2104.14294, equations 1 to 3 with two global views.

    Parameters
    ----------
    teacher, student : pair of Tensor, (B, K)
        Outputs for the two views.
    center : Tensor, (K,)
        Running mean of the teacher's outputs.

    Returns
    -------
    loss : Tensor, ()
    probabilities : pair of Tensor, (B, K)
        The teacher's.
    """
    one, two = (softmax((t.detach() - center) / teacher_temperature, dim=1) for t in teacher)
    log1, log2 = (log_softmax(s / student_temperature, dim=1) for s in student)
    loss = -((one * log2).sum(dim=1).mean() + (two * log1).sum(dim=1).mean()) / 2
    return loss, (one, two)


def entropy(p: Tensor) -> Tensor:
    """Entropy of distributions in the last dimension, nats."""
    return torch.special.entr(p).sum(dim=-1)


def dino_spread(
    probabilities: tuple[Tensor, Tensor], world: int = 1, mean: Mean = here
) -> tuple[Tensor, Tensor]:
    """What the teacher's outputs tell about the patch, and how sharp they are.

    The information is the entropy of the mean output less the mean entropy of the
    outputs, over its largest value, ln min(K, N). Both ways to collapse bring it to
    0: the same even distribution for all, and one prototype for all (arXiv
    2104.14294, section 5.3, where the two entropies are looked at apart).

    Returns
    -------
    information, sharpness : Tensor, ()
        Both from 0 to 1; `sharpness` is 1 less the mean entropy over ln K.
    """
    p = torch.cat(probabilities)
    count, outputs = len(p) * world, p.shape[1]
    whole, each = entropy(mean(p.mean(dim=0))), mean(entropy(p).mean())
    most = torch.log(torch.tensor(float(min(count, outputs))))
    return (whole - each) / most, 1 - each / torch.log(torch.tensor(float(outputs)))
