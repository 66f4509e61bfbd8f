"""``sunpipe verify``: read everything of a dataset again and list what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocess.dataset.check_geometry import check_geometry
from preprocess.dataset.check_info import check_config, check_files, check_info
from preprocess.dataset.check_quarantine import (
    check_inputs,
    check_quarantine,
    check_tiles,
    patch_sizes,
)
from preprocess.dataset.check_records import (
    check_identities,
    check_nulls,
    check_places,
    check_quality,
    check_splits,
)
from preprocess.dataset.check_shard import check_images, stated_of
from preprocess.dataset.check_table import Columns, Records, Report
from preprocess.dataset.table import inputs_schema, quarantine_schema, records_schema
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import TABLES, DatasetInfo, read_info, shard_name


def find_dataset(name: str) -> Path:
    """Folder of a dataset, from its name or its path."""
    named = Layout.current().shards(name) if "/" not in name else Path(name)
    return named if named.is_dir() or not Path(name).is_dir() else Path(name)


def _open_table(path: Path, schema: pa.Schema, report: Report) -> Columns | None:
    try:
        table = Columns(path)
        table.read_all()
    except (pa.ArrowException, OSError) as error:
        report(f"{path.name}: cannot be read ({error})")
        return None
    if not table.schema.equals(schema):
        report(f"{path.name}: its columns are not those of this version")
        return None
    return table


def _check_tables(
    folder: Path, info: DatasetInfo, settings: ShardSettings, good: set[str], report: Report
) -> Records | None:
    """Tables in themselves and against each other; returns the records where they can be used."""
    schemas = (records_schema(settings.is_patch), quarantine_schema(), inputs_schema())
    rows, lines, inputs = (
        _open_table(folder / name, schema, report) if name in good else None
        for name, schema in zip(TABLES, schemas, strict=True)
    )
    if rows is None or lines is None:
        return None
    if lines.count != info.counts.get("quarantined"):
        report("quarantine.parquet: its rows are not those that dataset.json counts")
    if not rows.count:
        report("records.parquet: has no rows")
        return None
    records = Records(rows, lines, report)
    complete = check_nulls(records, settings)
    check_quarantine(records)
    if inputs is not None:
        check_inputs(records, inputs)
    if not complete:
        return None
    try:
        check_tables(records, info, settings)
    except DataError as error:
        report(f"records.parquet: {error}")
    records.faults.close()
    return records


def check_tables(records: Records, info: DatasetInfo, settings: ShardSettings) -> None:
    """Report every row that cannot be, from the tables alone.

    Raises
    ------
    DataError
        When a time or a series cannot be read.
    """
    with np.errstate(all="ignore"):  # what was tampered with may be infinite
        check_places(records, info)
        check_identities(records, settings)
        check_splits(records, info, settings)
        check_quality(records, settings)
        check_tiles(records, settings)
        check_geometry(records, settings, patch_sizes(records, settings))


def verify(folder: Path, against: Path | None = None, samples: int = 64) -> list[str]:
    """Everything that is wrong with a dataset, in words; empty when nothing is.

    Parameters
    ----------
    folder : Path
        ``shards/<dataset>``.
    against : Path, optional
        The archive: its list of records is compared, and `samples` records,
        evenly chosen, are made again from their files with all their tiles and
        compared, pixels, columns and reasons.
    """
    problems: list[str] = []
    report = problems.append
    try:
        info = read_info(folder)
        settings = check_info(info, report)
        good = check_files(folder, info, report)
    except (DataError, AttributeError, TypeError) as error:
        return [*problems, str(error) if isinstance(error, DataError) else
                f"dataset.json is not a dataset description: {error}"]  # fmt: skip
    if settings is None:
        return problems
    check_config(folder, info, settings, report)
    records = _check_tables(folder, info, settings, good, report)
    if records is None:
        return problems
    stated = stated_of(records, settings)
    if {shard_name(number) for number in stated} != set(info.shards):
        report("records.parquet: its shards are not those of dataset.json")
    for number in sorted(stated):
        if shard_name(number) in good:
            try:
                check_images(
                    folder, number, info, settings, stated[number](), records.faults, report
                )
            except (DataError, OSError, KeyError, TypeError, ValueError) as error:
                report(f"{shard_name(number)}: {error}")
    records.faults.close()
    if against is not None and set(TABLES) <= good:
        from preprocess.dataset.check_archive import check_archive

        check_archive(folder, against, settings, samples, report)
    return problems
