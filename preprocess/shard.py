"""``sunpipe shard``: FITS to HDF5; any number of ranks gives the same bytes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from preprocess.build import TABLES, Builder, Row, check_splits
from preprocess.comm import communicator
from preprocess.inputs import list_inputs
from preprocess.manifest import NAME as MANIFEST
from preprocess.manifest import read_manifest
from preprocess.state import damaged_files, read_inputs, settings_record, why_rebuild
from sunpipe.errors import DataError
from sunpipe.lock import exclusive
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.shards.schema import DatasetInfo, read_info
from sunpipe.stage import Result, log


def shard(config: Config) -> Result | None:
    """Make the dataset; None on ranks other than 0."""
    comm = communicator()
    builder = Builder(config, comm)
    with ExitStack() as held:
        lock = builder.folder.with_name(f".lock-{config.dataset}")
        comm.root(lambda: held.enter_context(exclusive(lock, f"making {builder.folder}")))
        return _shard(builder, time.perf_counter())


def _shard(builder: Builder, started: float) -> Result | None:
    comm, folder = builder.comm, builder.folder
    inputs = comm.root(lambda: read_inputs(builder.archive))
    wanted = comm.root(lambda: settings_record(builder.settings, builder.archive, inputs))
    why = comm.root(lambda: why_rebuild(folder, builder.archive, inputs, wanted))
    if why is None and (damaged := damaged_files(folder, comm)):
        why = f"{', '.join(damaged)} missing or damaged"
    if why is None:
        if comm.rank:
            return None
        log(f"{folder} is up to date")
        return _result(read_info(folder), folder, started, up_to_date=True)
    if comm.rank == 0:
        log(f"making {folder} from {len(inputs)} records: {why}")
    comm.root(builder.prepare)
    rows, lines = builder.examine(inputs)
    comm.root(lambda: _check(rows, lines, builder.settings.test_harps))
    shards, kept = builder.write_shards(inputs, rows)
    info = comm.root(lambda: builder.publish(shards, rows, lines, wanted))
    if comm.rank:
        return None
    if kept:
        log(f"{kept} of {len(shards)} shards were finished by an earlier run")
    return _result(info, folder, started, up_to_date=False)


def _check(rows: list[Row], lines: list[Row], test_harps: tuple[int, ...]) -> None:
    if not rows:
        reasons = Counter(line["reason"] for line in lines)
        raise DataError(
            f"none of {len(lines)} candidates can be used ({dict(reasons)});"
            f" for example {lines[0]['record']}: {lines[0]['detail']}"
        )
    check_splits(rows)
    held = {row["harpnum"] for row in rows}
    if absent := sorted(set(test_harps) - held):
        log(f"shard.test_harps: no tile of HARP {', '.join(map(str, absent))} is in the dataset")
    if held <= set(test_harps):
        log("every HARP is in shard.test_harps; there is nothing to train on")


def _result(info: DatasetInfo, folder: Path, started: float, up_to_date: bool) -> Result:
    reasons = Counter(pq.read_table(folder / TABLES[1], columns=["reason"])["reason"].to_pylist())
    return {
        "dataset": str(folder),
        **info.counts,
        "shards": len(info.shards),
        "by_reason": dict(sorted(reasons.items())),
        "up_to_date": up_to_date,
        "seconds": round(time.perf_counter() - started, 3),
    }


def plan(config: Config) -> dict[str, Any]:
    """What `shard` would do."""
    layout = Layout.current()
    manifest = read_manifest(layout.archive)
    folder = layout.shards(config.dataset)
    inputs = list_inputs(manifest)
    wanted = settings_record(config.shard, layout.archive, inputs)
    return {
        "archive": str(layout.archive / MANIFEST),
        "records": len(inputs),
        "dataset": str(folder),
        "because": why_rebuild(folder, layout.archive, inputs, wanted),
    }
