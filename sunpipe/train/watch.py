"""Watching a GAN: is D winning too easily, does G still make different images.

The spread of D's features over a batch is compared between generated and real
images: a generator that collapses puts out images that D cannot tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sunpipe.train_settings import WatchSettings

NUMBERS = ("loss_G", "loss_D", "logits_real", "logits_fake", "r1_penalty", "r2_penalty",
           "pl_penalty", "pl_mean")  # fmt: skip


def feature_moments(features_fake: torch.Tensor, features_real: torch.Tensor) -> torch.Tensor:
    """Means of features and of their squares, (4, K) float64, without gradient.

    They may be averaged over ranks and over passes of equal size before `spread_ratio`:
    the spread over a pass of one image is no spread.
    """
    both = [features.detach().double() for features in (features_fake, features_real)]
    return torch.stack([(x**power).mean(dim=0) for power in (1, 2) for x in both])


def spread_ratio(moments: torch.Tensor) -> torch.Tensor:
    """`diversity` from averaged `feature_moments`."""
    variance = (moments[2:] - moments[:2].square()).clamp(min=0.0)
    # The difference of two rounded numbers: what is left of equal features is not a spread.
    variance = torch.where(variance > 1e-14 * moments[2:], variance, 0.0)
    fake, real = variance.sqrt().mean(dim=1)
    return torch.where(real > 0, fake / real, torch.nan)


def diversity(
    features_fake: torch.Tensor,
    features_real: torch.Tensor,
    mean: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Spread of D's features over generated images, as a share of that over real ones.

    Parameters
    ----------
    features_fake, features_real : Tensor, (B, K)
        Input of D's last layer (`Discriminator.features`) for this rank's samples.
    mean : callable
        Mean over ranks of a tensor (`sunpipe.train.means.mean_over_ranks`), called once.

    Returns
    -------
    Tensor, 0-dim float64
        Ratio of the standard deviations over all ranks' samples, each averaged over
        the K features. About 1 when G is as diverse as the data, 0 when all its
        images are one; NaN when the features do not vary over real images.
    """
    return spread_ratio(mean(feature_moments(features_fake, features_real)))


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return None if value is None else float(value)


def warnings(row: Mapping[str, Any], settings: WatchSettings) -> list[str]:
    """What is suspicious about a tick, one sentence each; empty when all is well.

    Parameters
    ----------
    row : mapping
        A row of ``stats.jsonl``; keys that it lacks are not judged. `NUMBERS` must be
        finite; ``logits_real``, ``logits_fake``, ``diversity``, ``skipped`` (steps left
        out) and ``ada_p`` are compared with what is healthy.
    settings : WatchSettings
    """
    found = []
    if bad := [key for key in NUMBERS if not math.isfinite(_number(row, key) or 0.0)]:
        found.append(f"not finite: {', '.join(bad)}; the run has diverged, lower lr_g and lr_d")
    real, fake = _number(row, "logits_real"), _number(row, "logits_fake")
    if real is not None and fake is not None:
        gap = real - fake
        between = f"logits {real:+.3g} for real and {fake:+.3g} for generated images"
        if gap > settings.logit_gap:
            found.append(
                f"D tells real from generated too easily: {between}, more than logit_gap ="
                f" {settings.logit_gap:g} apart; raise r1_gamma, or turn ada.target on"
            )
        elif gap < -settings.logit_gap:
            found.append(f"D takes generated images for real ones: {between}; it has diverged")
    spread = _number(row, "diversity")
    if spread is not None and math.isnan(spread):
        found.append("D's features do not vary over real images: D is dead or the images are equal")
    elif spread is not None and spread < settings.diversity:
        found.append(
            f"the generator may be collapsing: D's features spread {spread:.3g} times as far over"
            f" generated images as over real ones, less than diversity = {settings.diversity:g}"
        )
    if skipped := int(_number(row, "skipped") or 0):
        steps = "1 step was" if skipped == 1 else f"{skipped} steps were"
        found.append(f"{steps} left out because the loss was not finite")
    if (_number(row, "ada_p") or 0.0) >= 1.0:
        found.append(
            "ADA's p has reached 1 and D still overfits: more images, or a higher r1_gamma, help"
        )
    return found
