"""``[invert]``: from a real patch to the latent that makes it."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT, Count, NonNegative, Positive


@dataclass(frozen=True, config=STRICT)
class InvertSettings:
    """``[invert]``: from a real patch to the latent that makes it.

    `starts` latents are optimised over `steps` steps of Adam with rate `lr`: what
    the inversion encoder (trained for `encoder_kimg` on generated patches) says,
    the nearest of the samples, and others near them. `prior` weighs the distance
    from the cloud of w against the misfit of the field, `keywords` that of the
    measured quantities. `space` is ``w`` or ``w_plus``.
    """

    space: Literal["w", "w_plus"] = "w"
    starts: Count = 4
    steps: Count = 200
    lr: Positive = 0.1
    prior: NonNegative = 0.1
    keywords: NonNegative = 0.1
    encoder_kimg: Positive = 20.0
