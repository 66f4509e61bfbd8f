"""``[ssl]`` and ``[embed]``: the self-supervised encoder and what it embeds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.setting_types import STRICT, Count, NonNegative, Positive

Below1 = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class VicregSettings:
    """``[ssl.vicreg]``: weights of the three terms (arXiv:2105.04906, equation 6)."""

    invariance: NonNegative = 25.0
    variance: NonNegative = 25.0
    covariance: NonNegative = 1.0


@dataclass(frozen=True, config=STRICT)
class DinoSettings:
    """``[ssl.dino]``: teacher and head (arXiv:2104.14294, section 3).

    The teacher follows the student with `momentum`, which rises to 1 along half a
    cosine; its outputs are centred by a running mean that keeps `center_momentum`,
    and sharpened by `teacher_temperature`. `outputs` prototypes, `bottleneck` numbers
    before them.
    """

    outputs: Annotated[int, Field(ge=2)] = 1024
    bottleneck: Count = 128
    momentum: Below1 = 0.99
    center_momentum: Annotated[float, Field(ge=0, le=1)] = 0.9
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04


@dataclass(frozen=True, config=STRICT)
class SslSettings:
    """``[ssl]``: the self-supervised encoder. The clock is images shown.

    `method` is by default what found most (benchmarks/results/ssl_methods.json).

    `backbone` is ``residual`` (`width` and `dim` are the channels of its first and
    last stage) or ``timm:`` and a model of timm, with random weights or those of the
    safetensors file `weights`. `hidden` is the width of the heads.

    The optimiser is Adam with decoupled `weight_decay`, `momentum` its beta1. `lr` is
    for 256 images: the rate rises over `warm_up` of the run to ``lr * batch / 256`` and
    falls to 0 along half a cosine.

    Views: each of `symmetries` with probability 1/2, a window of `crop` to 1 of the
    side, a shift of up to `shift` of the side, noise of `noise_g` gauss in channels of
    the field (HMI's line-of-sight noise).

    A run ends by itself when its outputs are one vector for every patch: a collapse
    level above `collapsed` after a tenth of the run. `hang_s` is that of ``[train]``.
    """

    method: Literal["simsiam", "vicreg", "dino"] = "vicreg"
    kimg: Positive = 200.0
    batch: Annotated[int, Field(ge=2)] = 64
    lr: Positive = 0.002
    momentum: Below1 = 0.9
    weight_decay: NonNegative = 0.01
    warm_up: Below1 = 0.05
    backbone: Annotated[str, Field(pattern=r"^(residual|timm:[A-Za-z0-9_.]+)$")] = "residual"
    weights: Annotated[str, Field(pattern=r"\S")] | None = None
    width: Count = 32
    dim: Count = 128
    hidden: Count = 512
    vicreg: VicregSettings = VicregSettings()
    dino: DinoSettings = DinoSettings()
    normalize: NormalizeSettings = NormalizeSettings()
    symmetries: tuple[
        Literal["flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity"], ...
    ] = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")
    crop: Annotated[float, Field(gt=0, le=1)] = 0.75
    shift: Below1 = 0.125
    noise_g: NonNegative = 6.4
    collapsed: Annotated[float, Field(gt=0, le=1)] = 0.9
    timeout_s: Positive = 600.0
    hang_s: NonNegative = 300.0
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
