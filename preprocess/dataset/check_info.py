"""Whether ``dataset.json`` fits itself, ``config.json``, and the files beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from preprocess.dataset.check_table import Report
from preprocess.dataset.product import make_product
from sunpipe.config import to_dict, validate_as
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import read_json, sha256
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import TABLES, DatasetInfo
from sunpipe.shards.stored import Stored

_SUM = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"shard-\d{5,}\.h5")


def check_info(info: DatasetInfo, report: Report) -> ShardSettings | None:
    """Whether the description fits itself; returns its settings when they are settings."""
    if strange := sorted(name for name in info.shards if not _SHARD.fullmatch(name)):
        report(f"dataset.json: {strange} are no names of shards")
    if sorted(info.files) != sorted(TABLES):
        report(f"dataset.json: files are {sorted(info.files)}, expected {sorted(TABLES)}")
    for name, stated in {**info.shards, **info.files}.items():
        if not _SUM.fullmatch(str(stated)):
            report(f"dataset.json: {name} has no SHA-256")
    counts = info.counts
    if counts.get("records_in") != counts.get("rows", 0) + counts.get("quarantined", 0):
        report(f"dataset.json: records in are not rows + quarantined: {counts}")
    try:
        settings = validate_as(ShardSettings, info.settings, "settings")
    except ConfigError as error:
        report(f"dataset.json: its settings are none of [shard]: {error}")
        return None
    product, stored = make_product(settings), Stored(settings.dtype, settings.step)
    expected = {
        "product": settings.product, "channels": product.channels, "units": product.units,
        "resolution": product.resolution, "tile": product.tile, "stride": product.stride,
        "reduce": product.reduce, "dtype": settings.dtype, "storage": settings.storage,
        "scale": stored.scale, "max_error": stored.errors[0],
        "max_relative_error": stored.errors[1],
    }  # fmt: skip
    for key, value in expected.items():
        if getattr(info, key) != value:
            report(f"dataset.json: {key} is {getattr(info, key)!r}, its settings give {value!r}")
    return settings


def check_config(folder: Path, info: DatasetInfo, settings: ShardSettings, report: Report) -> None:
    """Whether ``config.json``, which nothing else is made of, states the same settings."""
    path = folder / "config.json"
    if not path.is_file():
        report("config.json: missing")
        return
    try:
        config = read_json(path)
        stated, name = config["shard"], config["dataset"]
        ours, stated = json.loads(json.dumps(to_dict(settings))), dict(stated)
    except (DataError, KeyError, TypeError, ValueError) as error:
        report(f"config.json: cannot be read ({error})")
        return
    if name != info.name:
        report(f"config.json: dataset is {name!r}, dataset.json says {info.name!r}")
    for key in sorted({*ours, *stated}):
        if stated.get(key) != ours.get(key):
            report(f"config.json: shard.{key} is {stated.get(key)!r}, dataset.json says"
                   f" {ours.get(key)!r}")  # fmt: skip


def check_files(folder: Path, info: DatasetInfo, report: Report) -> set[str]:
    """Digests and stray files; returns the names that are as published."""
    good = set()
    for name, stated in {**info.shards, **info.files}.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink():
            report(f"{name}: is not a plain file of the dataset")
        elif not path.is_file():
            report(f"{name}: missing")
        elif sha256(path) != stated:
            report(
                f"{name}: its content is not what was published (SHA-256); remove it and run"
                " sunpipe shard: only it is made again"
            )
        else:
            good.add(name)
    for path in sorted(folder.glob("*.h5")):
        if path.name not in info.shards:
            report(f"{path.name}: is no part of the dataset")
    return good
