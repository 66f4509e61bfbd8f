"""What happens before an encoder is trained: faults named, nothing written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.config import to_dict
from sunpipe.dist import TORCHRUN, Ranks
from sunpipe.errors import ConfigError, DataError, UsageError
from sunpipe.files import sha256
from sunpipe.settings import Config
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import DatasetInfo, dataset_id
from sunpipe.ssl_settings import SslSettings
from sunpipe.train.sinks import check_sinks
from sunpipe.train.symmetries import check_symmetries

JUDGED_FROM = 0.1  # share of the run before collapse is judged
# What may change between a run and its continuation without changing the weights.
FREE = frozenset(
    f"ssl.{key}" for key in ("tick_kimg", "checkpoint_kimg", "keep_checkpoints", "collapsed",
                             "timeout_s", "hang_s")
) | {"weights_file"}  # fmt: skip


def check_views(info: DatasetInfo, settings: SslSettings) -> None:
    """Refuse symmetries whose signs are not known for these channels.

    Raises
    ------
    DataError
        Names the channel, and what would do.
    """
    lists = settings.normalize.channels
    if lists is not None and lists != len(info.channels):
        raise UsageError(
            f"ssl.normalize lists {lists} channels, dataset {info.name} has {len(info.channels)}"
            f" ({', '.join(info.channels)})"
        )
    try:
        check_symmetries(settings.symmetries, info.channels, info.units)
    except ValueError as error:
        raise DataError(f"ssl.symmetries: {error} (dataset {info.name})") from None


def check(config: Config, ranks: Ranks, reader: ShardReader) -> None:
    """Refuse what cannot be trained, before anything is written.

    Raises
    ------
    DataError
        No patches, or channels without rules.
    UsageError
        A batch that does not divide over the ranks, or leaves one patch to a rank.
    """
    check_views(reader.info, config.ssl)
    check_sinks(config.track)
    if not len(reader):
        raise DataError(f"dataset {config.dataset} has no rows in split train")
    if config.ssl.batch % ranks.world:
        raise UsageError(
            f"ssl.batch={config.ssl.batch} does not divide over {ranks.world} ranks; use a multiple"
            f" of {ranks.world}"
        )
    if config.ssl.batch < 2 * ranks.world:
        raise UsageError(
            f"ssl.batch={config.ssl.batch} leaves one patch to each of {ranks.world} ranks; use at"
            f" least {2 * ranks.world}"
        )


def about(config: Config, reader: ShardReader) -> dict[str, Any]:
    """What decides a run's outcome, as stored in ``config.json``.

    Weights to start from are named by their content, ``ssl.weights``; where the file
    lay (``weights_file``) may change.

    Raises
    ------
    ConfigError
        The file cannot be read.
    """
    found = {
        "kind": "ssl",
        "seed": config.seed,
        "data": {"name": config.dataset, "id": dataset_id(reader.info)},
        "ssl": to_dict(config.ssl),
    }
    if config.ssl.weights is None:
        return found
    try:
        content = sha256(Path(config.ssl.weights))
    except OSError as error:
        raise ConfigError(f"ssl.weights: {error}") from None
    ssl = {**to_dict(config.ssl), "weights": f"sha256:{content}"}
    return {**found, "ssl": ssl, "weights_file": str(Path(config.ssl.weights).absolute())}


@contextmanager
def environment_kept() -> Iterator[None]:
    """Put the launcher's variables back: DeepSpeed needs them set, whoever calls us does not."""
    before = {key: os.environ.get(key) for key in TORCHRUN}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def judge(row: dict[str, Any], total: int, limit: float) -> None:
    """Stop a run that can only waste time.

    Parameters
    ----------
    row : dict
        Of ``stats.jsonl``: means over the tick and the ranks.
    total : int
        Images of the run.
    limit : float
        Collapse level that ends it.

    Raises
    ------
    DataError
        The loss is not finite, or after a tenth of the run all patches get one vector.
    """
    if not np.isfinite(row["loss"]):
        raise DataError(
            f"the loss is not finite at {row['kimg']:g} kimg; lower ssl.lr and start with --new"
        )
    if row["nimg"] > JUDGED_FROM * total and not row["collapse"] <= limit:
        raise DataError(
            f"the encoder collapsed (level {row['collapse']:.2f} > {limit:g} at"
            f" {row['kimg']:g} kimg): every patch gets the same vector; change ssl.lr, ssl.batch or"
            " ssl.method and start with --new"
        )
