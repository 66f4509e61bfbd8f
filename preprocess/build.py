"""Building a dataset in two passes over the archive, then publishing it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from preprocess.candidates import CHANNELS, UNITS, Row, examine, stored_image
from preprocess.comm import Communicator
from preprocess.hdf5 import write_shard
from preprocess.inputs import Input, archive_digest, load
from preprocess.table import quarantine_schema, records_schema, write_table
from sunpipe.config import to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, sha256, write_json
from sunpipe.lock import sweep
from sunpipe.paths import Layout
from sunpipe.provenance import provenance, versions
from sunpipe.settings import Config
from sunpipe.shards.cut import MAX_ERRORS, SCALES
from sunpipe.shards.schema import SCHEMA, DatasetInfo

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
        shards: dict[int, list[Row]] = {}
        for row in rows:
            shards.setdefault(row["shard"], []).append(row)

        @lru_cache(maxsize=4)
        def fields(record: str) -> NDArray[np.float64]:
            return load(self.archive, by_record[record], self.settings.quality).fields

        def work() -> dict[str, tuple[str, bool]]:
            return {
                shard_name(number): self._write_shard(number, shards[number], by_record, fields)
                for number in self.comm.share(len(shards))
            }

        merged = {name: done for share in self.comm.all(work) for name, done in share.items()}
        return (
            {name: merged[name][0] for name in sorted(merged)},
            sum(kept for _, kept in merged.values()),
        )

    def _write_shard(
        self,
        number: int,
        rows: list[Row],
        by_record: dict[str, Input],
        fields: Callable[[str], NDArray[np.float64]],
    ) -> tuple[str, bool]:
        """Write one shard unless it is there; returns its SHA-256 and whether it was.

        A note beside the shard says what it was made of, so that neither other
        settings nor another archive nor a damaged file is taken for finished.
        """
        path = self.building / shard_name(number)
        note = path.with_name(f"{path.name}.json")
        used = sorted({row["record"] for row in rows})
        made_of = digest([
            SCHEMA, self.attributes(), to_dict(self.settings),
            archive_digest(self.archive, [by_record[record] for record in used]),
            [[row["record"], row["tile_y"], row["tile_x"]] for row in rows],
        ])  # fmt: skip
        if note.is_file() and path.is_file():
            written = read_json(note)
            if written == {"made_of": made_of, "sha256": sha256(path)}:
                return written["sha256"], True
        images = (stored_image(fields(row["record"]), row, self.settings) for row in rows)
        side = self.settings.tile // self.settings.reduce
        write_shard(path, images, len(rows), side, self.settings.dtype, self.attributes())
        done = sha256(path)
        write_json(note, {"made_of": made_of, "sha256": done})
        return done, False

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
