"""``[ssl]`` and ``[embed]``: the self-supervised encoder and what it embeds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.setting_types import STRICT, Count, NonNegative, Positive


@dataclass(frozen=True, config=STRICT)
class SslSettings:
    """``[ssl]``: the SimSiam encoder. The clock is images shown.

    `lr` is for 256 images, the rate used is ``lr * batch / 256``; `width` and
    `dim` are the channels of the encoder's first and last stage, `hidden` those
    of the projector. Views: each of `symmetries` with probability 1/2, a window
    of `crop` to 1 of the side, a shift of up to `shift` of the side, noise of
    `noise_g` gauss (HMI's line-of-sight noise).
    """

    kimg: Positive = 200.0
    batch: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    width: Count = 32
    dim: Count = 128
    hidden: Count = 512
    normalize: NormalizeSettings = NormalizeSettings()
    symmetries: tuple[
        Literal["flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"], ...
    ] = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")
    crop: Annotated[float, Field(gt=0, le=1)] = 0.75
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.125
    noise_g: NonNegative = 6.4
    tick_kimg: Positive = 4.0
    checkpoint_kimg: Positive = 40.0
    keep_checkpoints: Count = 3


@dataclass(frozen=True, config=STRICT)
class EmbedSettings:
    """``[embed]``: which splits of the dataset the archive embedding holds.

    With `orbit` a vector is the mean over all mirrors, turns and polarities that
    the encoder was trained with: invariant to rounding, at 16 passes per patch.
    """

    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    batch: Count = 256
    orbit: bool = True
