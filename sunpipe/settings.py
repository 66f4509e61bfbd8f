"""The sections of a configuration, as frozen dataclasses that refuse unknown keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.index_settings import IndexSettings
from sunpipe.invert_settings import InvertSettings
from sunpipe.latent_settings import DirectionsSettings, SampleSettings
from sunpipe.query_settings import FetchSettings, QuerySettings
from sunpipe.retrieval_settings import RetrievalSettings
from sunpipe.search_settings import SearchSettings
from sunpipe.setting_types import STRICT, Name
from sunpipe.shard_settings import ShardSettings
from sunpipe.ssl_settings import EmbedSettings, SslSettings
from sunpipe.track_settings import TrackSettings
from sunpipe.train_settings import TrainSettings


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
    track: TrackSettings = TrackSettings()
    sample: SampleSettings = SampleSettings()
    directions: DirectionsSettings = DirectionsSettings()
    invert: InvertSettings = InvertSettings()
    ssl: SslSettings = SslSettings()
    embed: EmbedSettings = EmbedSettings()
    index: IndexSettings = IndexSettings()
    search: SearchSettings = SearchSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    report: ReportSettings = ReportSettings()
