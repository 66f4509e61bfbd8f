"""``sunpipe verify``: read everything of a dataset again and list what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.dataset.check_records import check_records
from preprocess.dataset.check_shard import check_images
from preprocess.dataset.product import make_product
from preprocess.dataset.table import inputs_schema, quarantine_schema, records_schema
from sunpipe.config import validate_as
from sunpipe.errors import ConfigError, DataError
from sunpipe.files import sha256
from sunpipe.paths import Layout
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import TABLES, DatasetInfo, read_info, shard_name
from sunpipe.shards.stored import Stored

_SUM = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"shard-\d{5,}\.h5")
Report = Callable[[str], None]


def find_dataset(name: str) -> Path:
    """Folder of a dataset, from its name or its path."""
    named = Layout.current().shards(name) if "/" not in name else Path(name)
    return named if named.is_dir() or not Path(name).is_dir() else Path(name)


def _check_info(info: DatasetInfo, report: Report) -> ShardSettings | None:
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


def _check_files(folder: Path, info: DatasetInfo, report: Report) -> set[str]:
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


def _read_table(path: Path, schema: pa.Schema, report: Report) -> pa.Table | None:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        report(f"{path.name}: cannot be read ({error})")
        return None
    if not table.schema.equals(schema):
        report(f"{path.name}: its columns are not those of this version")
        return None
    return table


def _check_tables(
    folder: Path, info: DatasetInfo, settings: ShardSettings, good: set[str], report: Report
) -> pa.Table | None:
    """Tables against each other; returns the records."""
    schemas = (records_schema(settings.is_patch), quarantine_schema(), inputs_schema())
    records, quarantine, inputs = (
        _read_table(folder / name, schema, report) if name in good else None
        for name, schema in zip(TABLES, schemas, strict=True)
    )
    if quarantine is not None and quarantine.num_rows != info.counts.get("quarantined"):
        report("quarantine.parquet: its rows are not those that dataset.json counts")
    if records is None:
        return None
    check_records(records, quarantine, info, settings, report)
    if inputs is not None and quarantine is not None:
        used = {*records["record"].to_pylist(), *quarantine["record"].to_pylist()}
        if used != set(inputs["record"].to_pylist()):
            report("inputs.parquet: its records are not those of the rows and the quarantine")
    return records


def verify(folder: Path, against: Path | None = None, samples: int = 64) -> list[str]:
    """Everything that is wrong with a dataset, in words; empty when nothing is.

    Parameters
    ----------
    folder : Path
        ``shards/<dataset>``.
    against : Path, optional
        The archive: `samples` images, evenly chosen, are made again from its
        files and compared, pixels and keywords.
    """
    problems: list[str] = []
    report = problems.append
    try:
        info = read_info(folder)
        settings = _check_info(info, report)
        good = _check_files(folder, info, report)
    except (DataError, AttributeError, TypeError) as error:
        return [*problems, str(error) if isinstance(error, DataError) else
                f"dataset.json is not a dataset description: {error}"]  # fmt: skip
    if settings is None:
        return problems
    records = _check_tables(folder, info, settings, good, report)
    if records is None:
        return problems
    shares: dict[int, list[float]] = {}
    for shard, share in zip(
        records["shard"].to_pylist(), records["nan_share"].to_pylist(), strict=True
    ):
        shares.setdefault(shard, []).append(share)
    if {shard_name(number) for number in shares} != set(info.shards):
        report("records.parquet: its shards are not those of dataset.json")
    for number, stated in sorted(shares.items()):
        if shard_name(number) in good:
            try:
                check_images(folder / shard_name(number), info, stated, report)
            except (DataError, OSError, KeyError, TypeError, ValueError) as error:
                report(f"{shard_name(number)}: {error}")
    if against is not None and not problems:
        from preprocess.dataset.check_archive import check_archive

        check_archive(folder, against, records, settings, samples, report)
    return problems
