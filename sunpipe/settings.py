"""The sections of a configuration, as frozen dataclasses that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class FetchSettings:
    """``[fetch]``: where FITS files come from.

    `source` is ``sample`` (bundled) or ``jsoc``; `records` are JSOC record-set
    strings without the segment braces; `url` is the root of the archive's web
    interface.
    """

    source: Literal["sample", "jsoc"] = "sample"
    series: str = "hmi.sharp_cea_720s"
    records: tuple[str, ...] = ("hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]",)
    segments: tuple[str, ...] = ("Br", "Bt", "Bp")
    url: str = "http://jsoc.stanford.edu/"
    timeout_s: Positive = 60.0
    retries: CountOrNone = 4


@dataclass(frozen=True, config=STRICT)
class ShardSettings:
    """``[shard]``: vector patches to HDF5.

    `tile` and `stride` are in native pixels (stride 0: the whole patch on a
    `tile` x `tile` canvas); `reduce` is a whole factor; `min_flux_mx` is the
    unsigned flux a tile must hold; `test_harps` are held out.
    """

    channels: tuple[str, ...] = ("Br", "Bt", "Bp")
    tile: Count = 128
    stride: CountOrNone = 16
    reduce: Count = 2
    min_flux_mx: NonNegative = 0.0
    max_nan_share: Share = 0.1
    quality: Literal["strict", "usual", "lenient"] = "usual"
    test_harps: tuple[int, ...] = ()
    dtype: Literal["int16", "float32"] = "int16"
    images_per_shard: Count = 512


@dataclass(frozen=True, config=STRICT)
class NormalizeSettings:
    """``normalize``: an invertible map from gauss to about [-1, 1].

    ``asinh`` and ``signed_log`` bend at `scale`; ``linear`` does not bend.
    `limit` is the magnitude that maps to 1; larger fields map beyond 1 and come
    back unchanged.
    """

    kind: Literal["asinh", "signed_log", "linear"] = "asinh"
    scale: Positive = 100.0
    limit: Positive = 3000.0


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """``[train.model]``: widths of StyleGAN2; resolution and channels come from the shards.

    Width at resolution r is ``min(channel_base / r, channel_max)``.
    """

    z_dim: Count = 512
    w_dim: Count = 512
    mapping_layers: Count = 8
    channel_base: Count = 32768
    channel_max: Count = 512
    mbstd_group: Count = 4


@dataclass(frozen=True, config=STRICT)
class ZeroSettings:
    """``[train.zero]``: how DeepSpeed shares the optimiser state."""

    stage: Literal[0, 1, 2] = 1
    offload: bool = True


@dataclass(frozen=True, config=STRICT)
class TrainSettings:
    """``[train]``: StyleGAN2. The clock is images shown (kimg = thousands)."""

    kimg: Positive = 25000.0
    batch: Count = 32
    lr_g: Positive = 0.002
    lr_d: Positive = 0.002
    r1_gamma: NonNegative = 10.0
    r1_interval: Count = 16
    pl_weight: NonNegative = 2.0
    pl_interval: Count = 4
    pl_decay: Share = 0.01
    pl_batch_shrink: Count = 2
    style_mixing: Share = 0.9
    ema_kimg: Positive = 10.0
    ema_rampup: Share = 0.05
    diffaugment: tuple[Literal["translation", "cutout"], ...] = ("translation", "cutout")
    normalize: NormalizeSettings = NormalizeSettings()
    model: ModelSettings = ModelSettings()
    zero: ZeroSettings = ZeroSettings()
    tick_kimg: Positive = 4.0
    checkpoint_kimg: Positive = 40.0
    image_kimg: Positive = 40.0
    keep_checkpoints: Count = 3


@dataclass(frozen=True, config=STRICT)
class SampleSettings:
    """``[sample]``: draw w, generate, decode, measure."""

    count: Count = 20000
    batch: Count = 64
    psi: Share = 1.0
    noise: Literal["const", "none"] = "const"


@dataclass(frozen=True, config=STRICT)
class DirectionsSettings:
    """``[directions]``: a linear SVM per quantity over w.

    `extremes` is the share of samples in each class (top and bottom),
    `test_share` what is held out, `steps` the positions of the traverse in
    standard deviations of w along the direction.
    """

    quantities: tuple[str, ...] = ("USFLUX", "MEANGAM", "TOTUSJH", "NETFLUX", "POLSEP")
    extremes: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    svm_c: Positive = 0.01
    steps: tuple[float, ...] = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    traverse_count: Count = 64
    bootstrap: CountOrNone = 20


@dataclass(frozen=True, config=STRICT)
class SslSettings:
    """``[ssl]``: the SimSiam encoder. The clock is images shown."""

    kimg: Positive = 200.0
    batch: Count = 64
    lr: Positive = 0.05
    width: Count = 32
    dim: Count = 128
    normalize: NormalizeSettings = NormalizeSettings()
    tick_kimg: Positive = 4.0
    checkpoint_kimg: Positive = 40.0
    keep_checkpoints: Count = 3


@dataclass(frozen=True, config=STRICT)
class EmbedSettings:
    """``[embed]``: which splits of the dataset the archive embedding holds."""

    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    batch: Count = 256


@dataclass(frozen=True, config=STRICT)
class IndexSettings:
    """``[index]``: the FAISS index."""

    metric: Literal["cosine", "euclidean"] = "cosine"


@dataclass(frozen=True, config=STRICT)
class SearchSettings:
    """``[search]``: `queries` generated patches are looked up, `k` matches each."""

    k: Count = 10
    queries: Count = 200


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
