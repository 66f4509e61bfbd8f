"""Building a dataset group by group in a working folder, then publishing it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from preprocess.archive import parse_record
from preprocess.comm import Communicator
from preprocess.dataset.groups import Fault, Group, continued_records
from preprocess.dataset.hdf5 import write_shard
from preprocess.dataset.inputs import Input
from preprocess.dataset.product import Opened, Row, make_product
from preprocess.dataset.splits import check_splits
from preprocess.dataset.table import (
    inputs_schema,
    quarantine_schema,
    records_schema,
    write_table,
    write_tables,
)
from sunpipe.config import to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, replace_folder, sha256, write_json
from sunpipe.fitsfile import FitsError
from sunpipe.lock import sweep
from sunpipe.paths import Layout
from sunpipe.provenance import provenance, versions
from sunpipe.settings import Config
from sunpipe.shards.schema import SCHEMA, TABLES, DatasetInfo, shard_name
from sunpipe.shards.stored import Stored, check_limits, pixel_digest
from sunpipe.stage import printable
from sunpipe.ticks import Ticks

MAX_SHARD_BYTES = 4 << 30
OPEN_AT_ONCE = 2  # inputs in memory; groups are runs of candidates, so neighbours share one


class Builder:
    """Builds one dataset in a working folder beside its place, then publishes it."""

    def __init__(self, config: Config, comm: Communicator) -> None:
        layout = Layout.current()
        self.comm = comm
        self.settings = config.shard
        self.product = make_product(config.shard)
        self.stored = Stored(config.shard.dtype, config.shard.step)
        self.name = config.dataset
        self.archive = layout.archive
        self.folder = layout.shards(config.dataset)
        self.building = self.folder.with_name(f".building-{config.dataset}")
        self.notes = self.folder.with_name(f".notes-{config.dataset}")
        self.config = printable(to_dict(config))
        self.schema = records_schema(config.shard.is_patch)
        product, images = self.product, config.shard.images_per_shard
        size = images * len(product.channels) * product.resolution**2
        size *= np.dtype(config.shard.dtype).itemsize
        if size > MAX_SHARD_BYTES:
            raise DataError(
                f"{images} images of this size are {size / 2**30:.1f} GiB; a shard is made in"
                f" memory, at most {MAX_SHARD_BYTES / 2**30:.0f} GiB: lower shard.images_per_shard"
            )

    def prepare(self) -> None:
        """Make the working folder and remove what a killed run left half-written."""
        for folder in (self.building, self.notes):
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)

    def write_groups(
        self,
        groups: list[Group],
        inputs: list[Input],
        digests: dict[str, str],
        faults: dict[str, Fault],
    ) -> int:
        """Read and write all groups that are not kept; ranks share them.

        Returns
        -------
        int
            How many stood there finished from an interrupted run.
        """
        by_record = {item.record: item for item in inputs}
        continued = continued_records(groups)

        @lru_cache(maxsize=OPEN_AT_ONCE)
        def opened(record: str) -> Opened | FitsError:
            try:
                return self.product.open(self.archive, by_record[record])
            except FitsError as error:  # kept, so that not every tile reads the files again
                return error
            except DataError as error:
                return FitsError("unusable", str(error))

        def work() -> int:
            wanted = [group for group in groups if not group.keep]
            mine = self.comm.share(len(wanted))
            finished = 0
            with Ticks(len(mine), "shards of this rank", quiet=self.comm.rank > 0) as ticks:
                for place in mine:
                    finished += self._write_group(wanted[place], digests, faults, continued, opened)
                    ticks.tick()
            return finished

        return sum(self.comm.all(work))

    def _paths(self, number: int) -> tuple[Path, Path, Path, Path]:
        """Shard, its rows, its quarantine, and the note that says they are complete."""
        path = self.building / shard_name(number)
        note = self.notes / path.name
        return (path, note.with_suffix(".rows"), note.with_suffix(".lines"),
                note.with_suffix(".json"))  # fmt: skip

    def _made_of(self, group: Group, digests: dict[str, str], faults: dict[str, Fault]) -> str:
        """Identity of a group, so that no other group or setting is taken for it."""
        records = sorted({record for record, _ in group.candidates})
        return digest([
            SCHEMA, self.attributes(), to_dict(self.settings),
            [list(one) for one in group.candidates],
            [[record, digests[record], faults.get(record)] for record in records],
        ])  # fmt: skip

    def _is_finished(self, number: int, made_of: str) -> bool:
        shard, rows, lines, note = self._paths(number)
        if not note.is_file():
            return False
        stated = read_json(note)
        found = {path.name: sha256(path) for path in (shard, rows, lines) if path.is_file()}
        return bool(stated == {"made_of": made_of, "files": found})

    def _write_group(
        self,
        group: Group,
        digests: dict[str, str],
        faults: dict[str, Fault],
        continued: dict[int, set[str]],
        opened: Callable[[str], Opened | FitsError],
    ) -> bool:
        """Write one group unless it stands there finished; returns whether it did."""
        made_of = self._made_of(group, digests, faults)
        if self._is_finished(group.number, made_of):
            return True
        shard, rows_path, lines_path, note = self._paths(group.number)
        note.unlink(missing_ok=True)
        unread = set(continued[group.number])
        rows: list[Row] = []
        lines: list[Row] = []
        images: list[tuple[NDArray[Any], NDArray[np.uint8]]] = []
        for record, place in group.candidates:
            try:
                if record in faults:
                    raise FitsError(*faults[record])
                source = opened(record)
                if isinstance(source, FitsError):
                    if record in unread:
                        continue  # a record that cannot be read is one candidate
                    unread.add(record)
                    place = None
                    raise source
                if place is None:
                    raise FitsError(
                        "changed", "could not be read before; run sunpipe shard --fresh"
                    )
                row, image, mask = source.image(place)
                check_limits(image, self.product.units)
                pair = self.stored.quantise(image), mask.astype(np.uint8)
                images.append(pair)
                place_in = {"shard": group.number, "position": len(rows)}
                rows.append({**place_in, **row, "pixels": pixel_digest(*pair)})
            except FitsError as error:
                lines.append(_line(group.number, record, place, error))
        if rows:
            write_shard(
                shard, images, len(rows), self.product.resolution, self.settings.dtype,
                self.attributes(), self.settings.storage,
            )  # fmt: skip
        else:
            shard.unlink(missing_ok=True)
        write_table(rows_path, rows, self.schema)
        write_table(lines_path, lines, quarantine_schema())
        found = (path for path in (shard, rows_path, lines_path) if path.is_file())
        write_json(note, {"made_of": made_of, "files": {path.name: sha256(path) for path in found}})
        return False

    def attributes(self) -> dict[str, Any]:
        """What a shard says about itself."""
        return {
            "channels": self.product.channels,
            "units": self.product.units,
            "scale": self.stored.scale,
            "max_error": self.stored.errors[0],
            "max_relative_error": self.stored.errors[1],
        }

    def _tables(self, groups: list[Group], which: int) -> Iterator[pa.Table]:
        """Rows (0) or quarantine (1) of every group, old ones from the published dataset."""
        old = pq.read_table(self.folder / TABLES[which]) if any(g.keep for g in groups) else None
        shards = np.zeros(0) if old is None else old["shard"].to_numpy()
        first = 0
        for group in groups:
            if group.keep:
                assert old is not None
                start, stop = np.searchsorted(shards, [group.number, group.number + 1])
                table = old.slice(start, stop - start)
                if which == 1:  # without those that are no candidates of the group any more
                    stay = pa.array(sorted({record for record, _ in group.candidates}))
                    table = table.filter(pc.is_in(table["record"], value_set=stay))
            else:
                table = pq.read_table(self._paths(group.number)[1 + which])
            if which == 0:
                numbers = pa.array(np.arange(first, first + table.num_rows))
                place = table.schema.get_field_index("row")
                table = table.set_column(place, "row", numbers)
                first += table.num_rows
            yield table.cast(self.schema if which == 0 else quarantine_schema())

    def _place_shards(self, groups: list[Group], old: DatasetInfo | None) -> dict[str, str]:
        """Bring kept shards into the working folder; returns name to SHA-256 of all."""
        shards = {}
        for group in groups:
            name = shard_name(group.number)
            if group.keep:
                assert old is not None, "a kept group has a published dataset"
                if name in old.shards:
                    _link(self.folder / name, self.building / name)
                    shards[name] = old.shards[name]
            elif name in (files := read_json(self._paths(group.number)[3])["files"]):
                shards[name] = files[name]
        return dict(sorted(shards.items()))

    def publish(
        self, groups: list[Group], digests: dict[str, str], old: DatasetInfo | None
    ) -> DatasetInfo:
        """Write the tables and ``dataset.json``, then move the dataset to its place.

        Raises
        ------
        DataError
            When no candidate can be used, or a HARP stands on both sides of the split.
        """
        groups = sorted(groups, key=lambda group: group.number)
        shards = self._place_shards(groups, old)
        paths = [self.building / name for name in TABLES]
        rows = write_tables(paths[0], self._tables(groups, 0), self.schema)
        lines = write_tables(paths[1], self._tables(groups, 1), quarantine_schema())
        stated = [{"record": record, "digest": digests[record]} for record in digests]
        write_table(paths[2], stated, inputs_schema())
        if not rows:
            left = self.folder.with_name(f"{self.name}-quarantine.parquet")
            shutil.copyfile(paths[1], left)
            raise _nothing(paths[1], left)
        splits = check_splits(paths[0])
        info = DatasetInfo(
            name=self.name,
            product=self.settings.product,
            **self.attributes(),
            resolution=self.product.resolution,
            tile=self.product.tile,
            stride=self.product.stride,
            reduce=self.product.reduce,
            dtype=self.settings.dtype,
            storage=self.settings.storage,
            shards=shards,
            files={path.name: sha256(path) for path in paths},
            counts={
                "records_in": rows + lines,
                "rows": rows,
                "quarantined": lines,
                "train": splits["train"],
                "test": splits["test"],
            },
            settings=to_dict(self.settings),
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
        replace_folder(self.building, self.folder)
        shutil.rmtree(self.notes)  # only now: until here a failure costs no finished shard
        return info


def _line(number: int, record: str, place: Any, error: FitsError) -> Row:
    name = parse_record(record)
    y, x = place if place is not None else (None, None)
    return {"shard": number, "record": record, "harpnum": name.harpnum, "t_rec": name.t_rec,
            "tile_y": y, "tile_x": x, "reason": error.reason, "detail": error.detail}  # fmt: skip


def _link(source: Path, target: Path) -> None:
    """A second name for a shard where the file system can, a copy elsewhere."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _nothing(quarantine: Path, left: Path) -> DataError:
    """Why no candidate can be used; every reason stands in `left`."""
    table = pq.read_table(quarantine)
    counts = Counter(table["reason"].to_pylist()).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    first = table.slice(0, 1).to_pylist()[0]
    return DataError(
        f"none of {table.num_rows} candidates can be used: {reasons} (all in {left}); for example"
        f" {first['record']}: {first['detail']}"
    )
