"""Which pixels count: JSOC's mask, and an estimate of it where JSOC's maps are missing."""

from __future__ import annotations

import torch

Tensor = torch.Tensor
MIN_BITMAP = 30  # inside the HARP (33 quiet, 34 active), Bobra et al. 2014
ACTIVE = 34  # in the HARP and of strong field
MIN_CONFIDENCE = 70  # 90 = above the disambiguation noise threshold, 60 = below it
STRONG_FIELD = 200.0  # gauss
STRONG_NEIGHBOURS = 5  # of the 9 pixels of a 3 x 3 box


def sharp_mask(bitmap: Tensor, conf_disambig: Tensor) -> Tensor:
    """JSOC's rule: in the HARP and of well-determined azimuth. Any equal shapes -> bool."""
    return (bitmap >= MIN_BITMAP) & (conf_disambig >= MIN_CONFIDENCE)


def estimate_mask(fields: Tensor, threshold: float = STRONG_FIELD) -> Tensor:
    """Strong-field pixels, for patches that come without bitmap and conf_disambig.

    A pixel counts when |B| > `threshold` there and in at least 5 pixels of the
    3 x 3 box about it (so that single noisy pixels drop out). It stands for
    ``conf_disambig >= 70``; it cannot know the outline of the HARP, so activity
    elsewhere in the rectangle counts too. How well it agrees: docs/physics.md.

    Parameters
    ----------
    fields : Tensor, (B, 3, H, W)
        Gauss; NaN = invalid.
    threshold : float
        Gauss.

    Returns
    -------
    Tensor, (B, H, W) bool
    """
    strong = fields.square().sum(dim=1) > threshold**2  # False where NaN
    if not strong.numel():
        return strong
    padded = torch.nn.functional.pad(strong[:, None].float(), (1, 1, 1, 1), mode="replicate")
    near = torch.nn.functional.avg_pool2d(padded, 3, stride=1)[:, 0] * 9
    return strong & (near > STRONG_NEIGHBOURS - 0.5)
