"""What no training can be: found from settings and a description of images alone.

`sunpipe.train.begin.check` asks before a training starts, `hpc.plan` before one is queued.
"""

from __future__ import annotations

from collections.abc import Sequence

from sunpipe.errors import DataError, UsageError
from sunpipe.models.stripes import check as check_stripes
from sunpipe.settings import Config
from sunpipe.train.augment import check_policy
from sunpipe.train.engine import STAGE_3
from sunpipe.train.symmetries import check_symmetries
from sunpipe.train_settings import TrainSettings


def check_layout(t: TrainSettings, ranks: int) -> None:
    """Refuse a batch that does not divide over ranks, groups of stripes and passes.

    Raises
    ------
    UsageError
        Names the setting.
    """
    compute = t.compute
    if t.zero.stage == 3:
        raise UsageError(STAGE_3)
    if ranks % compute.stripes:
        raise UsageError(
            f"{ranks} ranks do not divide into groups of train.compute.stripes={compute.stripes}"
        )
    groups = ranks // compute.stripes
    parts = groups * compute.accumulate
    if t.batch % parts:
        over = f"{groups} ranks" if compute.stripes == 1 else (
            f"{groups} groups of {compute.stripes} ranks")  # fmt: skip
        if compute.accumulate > 1:
            over += f" x train.compute.accumulate={compute.accumulate}"
        raise UsageError(
            f"train.batch={t.batch} does not divide over {over}; use a multiple of {parts}"
        )


def check_images(
    cfg: Config, resolution: int, channels: Sequence[str], units: Sequence[str],
    images: int | None,
) -> None:  # fmt: skip
    """Refuse images that the networks, augmentations or symmetries cannot take.

    Parameters
    ----------
    channels, units : sequence of str
        As in ``dataset.json``.
    images : int or None
        Of the training split; None where they are not made yet.

    Raises
    ------
    UsageError
        Names the setting.
    DataError
        No training images.
    """
    t, compute = cfg.train, cfg.train.compute
    if resolution < 8 or resolution & (resolution - 1):
        raise UsageError(
            f"dataset {cfg.dataset} has {resolution} x {resolution} pixels, StyleGAN2 needs a power"
            " of two of at least 8; change shard.tile or shard.reduce and run sunpipe shard"
        )
    if images == 0:
        raise DataError(f"dataset {cfg.dataset} has no training images; check shard.test_harps")
    lists = t.normalize.channels
    if lists is not None and lists != len(channels):
        raise UsageError(
            f"train.normalize lists {lists} channels, dataset {cfg.dataset} has"
            f" {len(channels)} ({', '.join(channels)})"
        )
    for section, refuse in (
        ("train.diffaugment", lambda: check_policy(t.diffaugment, units)),
        ("train.compute",
         lambda: check_stripes(compute.stripes, compute.stripes_from, resolution)),
        ("train.symmetries", lambda: check_symmetries(t.symmetries, channels, units)),
    ):  # fmt: skip
        try:
            refuse()
        except ValueError as error:
            raise UsageError(f"{section}: {error} (dataset {cfg.dataset})") from None
