"""Adaptive strength of augmentation: the rule of ADA.

Karras et al. 2020 (arXiv:2006.06676, section 3.1): ``r_t = E[sign(D(real))]``
tells how far D overfits, 0 not at all, 1 wholly. Every few steps the probability
p of each augmentation is moved by a fixed amount, up when r_t is above its
target and down when below. The state lives on the device: nothing waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as torch_dist

from sunpipe.errors import DataError
from sunpipe.train_settings import AdaSettings

KEYS = ("p", "signs", "count")


@dataclass(frozen=True)
class Ada:
    """Where the rule stands; the same on every rank.

    Attributes
    ----------
    p : Tensor, 0-dim float64
        Probability of each augmentation.
    signs, count : Tensor, 0-dim int64
        Sum of the signs of D(real) since p was last moved, and of how many images:
        whole numbers, so that their sum does not depend on the number of ranks.
    """

    p: torch.Tensor
    signs: torch.Tensor
    count: torch.Tensor


def start(device: torch.device) -> Ada:
    """State of a new run: p is 0 and nothing was seen."""
    whole = torch.zeros((), dtype=torch.int64, device=device)
    return Ada(torch.zeros((), dtype=torch.float64, device=device), whole, whole.clone())


def count_signs(real_logits: torch.Tensor) -> torch.Tensor:
    """Sum of the signs of logits of any shape, and of how many; (2,) int64. A NaN is no image."""
    logits = real_logits.detach()
    return torch.stack(((logits > 0).sum() - (logits < 0).sum(), (~logits.isnan()).sum()))


def observe(ada: Ada, signs: torch.Tensor, world: int) -> Ada:
    """Add one step's logits of (augmented) real images; a collective when ``world > 1``.

    Parameters
    ----------
    signs : Tensor, (2,) int64
        `count_signs` of D(real) of this rank's samples.
    world : int
        Number of ranks; their sums are added.
    """
    both = signs.clone()
    if world > 1:
        torch_dist.all_reduce(both)
    return Ada(ada.p, ada.signs + both[0], ada.count + both[1])


def adjust(ada: Ada, settings: AdaSettings, batch: int) -> Ada:
    """Move p after `interval` steps and forget the signs.

    Parameters
    ----------
    settings : AdaSettings
        p moves by ``sign(r_t - target) * batch * interval / (1000 * kimg)`` and
        stays within 0 and 1. It does not move when no image was seen.
    batch : int
        Images per step on all ranks.
    """
    step = batch * settings.interval / (1000 * settings.kimg)
    overfitting = ada.signs.double() / ada.count.clamp(min=1).double()
    move = torch.sign(overfitting - settings.target) * (ada.count > 0) * step
    zero = torch.zeros_like(ada.count)
    return Ada((ada.p + move).clamp(0.0, 1.0), zero, zero.clone())


def to_json(ada: Ada) -> dict[str, Any]:
    """Plain numbers for a checkpoint; waits for the device."""
    return {key: getattr(ada, key).item() for key in KEYS}


def from_json(data: dict[str, Any], device: torch.device) -> Ada:
    """Inverse of `to_json`, exact.

    Raises
    ------
    DataError
        Missing or extra entries, or numbers that cannot be.
    """
    p, signs, count = (data.get(key) for key in KEYS)
    sound = (
        data.keys() == set(KEYS)
        and isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1
        and type(signs) is int and type(count) is int and abs(signs) <= count
    )  # fmt: skip
    if not sound:
        raise DataError(f"the checkpoint's state of ADA cannot be used: {data}")
    return Ada(
        torch.tensor(p, dtype=torch.float64, device=device),
        torch.tensor(signs, dtype=torch.int64, device=device),
        torch.tensor(count, dtype=torch.int64, device=device),
    )
