"""The sections of a configuration, as frozen dataclasses that refuse unknown keys."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.physics.quantities import check_measurable
from sunpipe.query_settings import FetchSettings, QuerySettings
from sunpipe.setting_types import (
    STRICT,
    Count,
    CountOrNone,
    Name,
    NonNegative,
    Positive,
    Share,
)
from sunpipe.shard_settings import ShardSettings
from sunpipe.train_settings import TrainSettings


def _measurable(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse quantities that patches cannot be measured by."""
    check_measurable(names)
    return names


QuantityNames = Annotated[tuple[str, ...], AfterValidator(_measurable)]


@dataclass(frozen=True, config=STRICT)
class SampleSettings:
    """``[sample]``: draw w, generate, decode, measure.

    `quantities` are measured on every patch and at every step of a walk; empty
    means all that need no line-of-sight field.
    """

    count: Count = 20000
    batch: Count = 64
    psi: Share = 1.0
    noise: Literal["const", "none"] = "const"
    quantities: QuantityNames = ()


@dataclass(frozen=True, config=STRICT)
class DirectionsSettings:
    """``[directions]``: a linear SVM per quantity over w.

    `extremes` is the share of samples in each class (top and bottom),
    `test_share` what is held out, `max_undefined` the largest share of samples
    in which a quantity may be undefined, `bootstrap` the refits that give the
    uncertainty of a direction. `metric` says how w moves: as it varies when the
    SVM's score does (``covariance``), or along the plane's normal
    (``euclidean``). `steps` are the positions of the traverse in standard
    deviations of w along the direction, `reach` how far from the mean of w, in
    the same unit, ``sunpipe traverse`` may go.
    """

    quantities: QuantityNames = ("USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "POLSEP")
    extremes: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_undefined: Share = 0.5
    solver: Literal["newton", "sklearn"] = "newton"
    svm_c: Positive = 0.01
    bootstrap: CountOrNone = 20
    metric: Literal["covariance", "euclidean"] = "covariance"
    steps: tuple[float, ...] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    traverse_count: Count = 64
    reach: Positive = 4.0

    def __post_init__(self) -> None:
        if not self.quantities:
            raise ValueError("quantities is empty; name at least one")
        if len(self.steps) < 2 or any(b <= a for a, b in pairwise(self.steps)):
            raise ValueError("steps must be at least two numbers in rising order")


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


@dataclass(frozen=True, config=STRICT)
class IndexSettings:
    """``[index]``: the FAISS index."""

    metric: Literal["cosine", "euclidean"] = "cosine"


@dataclass(frozen=True, config=STRICT)
class SearchSettings:
    """``[search]``: `queries` generated patches are looked up, `k` records each.

    `where` is a condition on the metadata, as of ``sunpipe index search``.
    """

    k: Count = 10
    queries: Count = 200
    where: Annotated[str, Field(pattern=r"\S")] | None = None


@dataclass(frozen=True, config=STRICT)
class ReportSettings:
    """``[report]``: the HTML page."""

    title: str = "sunpipe report"


@dataclass(frozen=True, config=STRICT)
class Config:
    """A whole experiment.

    `name` labels runs, latents, embeddings, index and report; `dataset` labels
    the shards.
    """

    name: Name
    dataset: Name = "sharp_vector"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    query: QuerySettings = QuerySettings()
    fetch: FetchSettings = FetchSettings()
    shard: ShardSettings = ShardSettings()
    train: TrainSettings = TrainSettings()
    sample: SampleSettings = SampleSettings()
    directions: DirectionsSettings = DirectionsSettings()
    ssl: SslSettings = SslSettings()
    embed: EmbedSettings = EmbedSettings()
    index: IndexSettings = IndexSettings()
    search: SearchSettings = SearchSettings()
    report: ReportSettings = ReportSettings()
