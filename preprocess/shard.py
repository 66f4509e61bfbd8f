"""FITS to HDF5: ranks share the records, then the shards; any number gives the same bytes."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from preprocess.candidates import (
    CHANNELS,
    MAX_ERRORS,
    SCALES,
    UNITS,
    Row,
    examine,
    stored_image,
)
from preprocess.comm import Communicator, communicator
from preprocess.hdf5 import write_shard
from preprocess.inputs import Input, archive_digest, edited_since, list_inputs, load
from preprocess.lock import exclusive, sweep
from preprocess.manifest import NAME as MANIFEST
from preprocess.manifest import read_manifest
from preprocess.table import quarantine_schema, records_schema, write_table
from sunpipe.config import to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256, write_json
from sunpipe.paths import Layout
from sunpipe.provenance import provenance, versions
from sunpipe.settings import Config, ShardSettings
from sunpipe.shards.schema import SCHEMA, DatasetInfo, read_info
from sunpipe.stage import Result, log

TABLES = ("records.parquet", "quarantine.parquet")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.h5"


def place_rows(rows: list[Row], images_per_shard: int) -> list[Row]:
    """Give every row its number, shard and position; `rows` are in dataset order."""
    return [
        {"row": n, "shard": n // images_per_shard, "position": n % images_per_shard, **row}
        for n, row in enumerate(rows)
    ]


def check_splits(rows: list[Row]) -> None:
    """Refuse a dataset in which a HARP stands on both sides.

    Raises
    ------
    DataError
        Names the HARPs.
    """
    sides: dict[int, set[str]] = {}
    for row in rows:
        sides.setdefault(row["harpnum"], set()).add(row["split"])
    if both := sorted(harp for harp, split in sides.items() if len(split) > 1):
        raise DataError(f"HARPs {both} stand in the training and in the test split")


def settings_record(settings: ShardSettings, archive: Path, inputs: list[Input]) -> dict[str, Any]:
    """What decides the content of a dataset."""
    return {**to_dict(settings), "archive": archive_digest(archive, inputs)}


def read_inputs(archive: Path) -> list[Input]:
    """Records of the archive; an empty archive is an error that names the remedy."""
    manifest = read_manifest(archive)
    inputs = list_inputs(manifest)
    if not inputs:
        raise DataError(f"the archive {archive} is empty; run sunpipe fetch first")
    listed = {archive / entry.path for entry in manifest.values()}
    if stray := sum(path not in listed for path in archive.rglob("*.fits")):
        log(f"{stray} FITS files in {archive} are not in its manifest and are left out")
    return inputs


def why_rebuild(
    folder: Path, archive: Path, inputs: list[Input], wanted: dict[str, Any]
) -> str | None:
    """Why the dataset must be made (again), or None when its description fits."""
    try:
        info = read_info(folder)
    except DataError:
        return "there is no complete dataset yet"
    changed = sorted(key for key in {*info.settings, *wanted}
                     if info.settings.get(key) != wanted.get(key))  # fmt: skip
    if changed:
        return "changed since the last time: " + ", ".join(changed)
    if edited := edited_since(archive, inputs, (folder / "dataset.json").stat().st_mtime):
        return f"{edited} was edited"
    return None


def damaged_files(folder: Path, comm: Communicator) -> list[str]:
    """Files of a published dataset that are not as published; ranks share the reading."""
    info = read_info(folder)
    files = list({**info.shards, **info.files}.items())

    def work() -> list[str]:
        mine = (files[place] for place in comm.share(len(files)))
        return [name for name, sum_ in mine
                if not (folder / name).is_file() or sha256(folder / name) != sum_]  # fmt: skip

    return sorted(name for names in comm.all(work) for name in names)


class Builder:
    """Builds one dataset in a working folder beside its place, then publishes it."""

    def __init__(self, config: Config, comm: Communicator) -> None:
        layout = Layout.current()
        self.comm = comm
        self.settings = config.shard
        self.name = config.dataset
        self.archive = layout.archive
        self.folder = layout.shards(config.dataset)
        self.building = self.folder.with_name(f".building-{config.dataset}")
        self.config = to_dict(config)

    def prepare(self) -> None:
        """Make the working folder and remove what a killed run left half-written."""
        self.building.mkdir(parents=True, exist_ok=True)
        sweep(self.building)

    def examine(self, inputs: list[Input]) -> tuple[list[Row], list[Row]]:
        """First pass: rows and quarantine of the whole archive, in dataset order."""
        shares = self.comm.all(
            lambda: {
                place: examine(self.archive, inputs[place], self.settings)
                for place in self.comm.share(len(inputs))
            }
        )
        found = {place: result for share in shares for place, result in share.items()}
        rows = [row for place in range(len(inputs)) for row in found[place][0]]
        quarantine = [line for place in range(len(inputs)) for line in found[place][1]]
        return place_rows(rows, self.settings.images_per_shard), quarantine

    def write_shards(self, inputs: list[Input], rows: list[Row]) -> tuple[dict[str, str], int]:
        """Second pass: every rank writes its shards; finished ones are kept.

        Returns
        -------
        shards : dict
            File name to SHA-256.
        kept : int
            How many stood there from an interrupted run.
        """
        by_record = {item.record: item for item in inputs}
        side = self.settings.tile // self.settings.reduce

        @lru_cache(maxsize=8)
        def fields(record: str) -> NDArray[np.float64]:
            return load(self.archive, by_record[record], self.settings.quality).fields

        shards: dict[int, list[Row]] = {}
        for row in rows:
            shards.setdefault(row["shard"], []).append(row)

        def images(mine: list[Row]) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
            for row in mine:
                yield stored_image(fields(row["record"]), row, self.settings)

        def work() -> dict[str, tuple[str, bool]]:
            done = {}
            for number in self.comm.share(len(shards)):
                name = shard_name(number)
                mine = shards[number]
                used = sorted({row["record"] for row in mine})
                plan = digest([
                    SCHEMA, to_dict(self.settings),
                    archive_digest(self.archive, [by_record[record] for record in used]),
                    [[row["record"], row["tile_y"], row["tile_x"]] for row in mine],
                ])  # fmt: skip
                path, note = self.building / name, self.building / f"{name}.json"
                if note.is_file() and path.is_file():
                    written = read_json(note)
                    if written.get("plan") == plan and written.get("sha256") == sha256(path):
                        done[name] = (written["sha256"], True)
                        continue
                write_shard(
                    path, images(mine), len(mine), side, self.settings.dtype, self.attributes()
                )
                done[name] = (sha256(path), False)
                write_json(note, {"plan": plan, "sha256": done[name][0]})
            return done

        merged = {k: v for share in self.comm.all(work) for k, v in share.items()}
        return (
            {name: merged[name][0] for name in sorted(merged)},
            sum(kept for _, kept in merged.values()),
        )

    def attributes(self) -> dict[str, Any]:
        """What a shard says about itself."""
        return {
            "channels": CHANNELS,
            "units": UNITS,
            "scale": SCALES[self.settings.dtype],
            "max_error": MAX_ERRORS[self.settings.dtype],
        }

    def publish(
        self, shards: dict[str, str], rows: list[Row], lines: list[Row], wanted: dict[str, Any]
    ) -> DatasetInfo:
        """Write the tables and ``dataset.json``, then move the dataset to its place."""
        write_table(self.building / TABLES[0], rows, records_schema())
        write_table(self.building / TABLES[1], lines, quarantine_schema())
        splits = Counter(row["split"] for row in rows)
        info = DatasetInfo(
            name=self.name,
            **self.attributes(),
            resolution=self.settings.tile // self.settings.reduce,
            tile=self.settings.tile,
            stride=self.settings.stride,
            reduce=self.settings.reduce,
            dtype=self.settings.dtype,
            shards=shards,
            files={name: sha256(self.building / name) for name in TABLES},
            counts={
                "records_in": len(rows) + len(lines),
                "rows": len(rows),
                "quarantined": len(lines),
                "train": splits["train"],
                "test": splits["test"],
            },
            settings=wanted,
            versions={**versions(), "hdf5": h5py.version.hdf5_version,
                      "hdf5plugin": hdf5plugin.version},
        )  # fmt: skip
        keep = {*shards, *TABLES}
        for path in self.building.iterdir():
            if path.name not in keep:
                path.unlink()
        write_json(self.building / "config.json", self.config)
        write_json(self.building / "provenance.json", provenance())
        info.write(self.building)
        old = self.folder.with_name(f".old-{self.name}")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        self.building.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        return info


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
    comm.root(lambda: _check(rows, lines))
    shards, kept = builder.write_shards(inputs, rows)
    info = comm.root(lambda: builder.publish(shards, rows, lines, wanted))
    if comm.rank:
        return None
    if kept:
        log(f"{kept} of {len(shards)} shards were finished by an earlier run")
    return _result(info, folder, started, up_to_date=False)


def _check(rows: list[Row], lines: list[Row]) -> None:
    if not rows:
        reasons = Counter(line["reason"] for line in lines)
        first = next(iter(lines))
        raise DataError(f"none of {len(lines)} candidates can be used ({dict(reasons)});"
                        f" for example {first['record']}: {first['detail']}")  # fmt: skip
    check_splits(rows)


def _result(info: DatasetInfo, folder: Path, started: float, up_to_date: bool) -> Result:
    import pyarrow.parquet as pq

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
