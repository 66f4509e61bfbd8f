"""A dataset against the archive it was made of: nothing missing, and records made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from preprocess.dataset.check_table import Faults, Report
from preprocess.dataset.groups import candidates_of
from preprocess.dataset.inputs import Input, list_inputs
from preprocess.dataset.product import Place, Product, Row, make_product
from preprocess.dataset.state import digests_of
from preprocess.manifest import read_manifest
from sunpipe.errors import DataError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import TABLES
from sunpipe.shards.stored import Stored, check_limits, pixel_digest

OF_THE_DATASET = {"row", "shard", "position"}
Candidates = dict[Place | None, Row]


def check_archive(
    folder: Path, archive: Path, settings: ShardSettings, samples: int, report: Report
) -> None:
    """Compare the list of records, then make `samples` records again with all their tiles.

    Reports records that the dataset lacks or that were changed since, and of the
    chosen records every candidate that is not what the files give: pixels, each
    column, or the reason in the quarantine.
    """
    product = make_product(settings)
    try:
        inputs = list_inputs(read_manifest(archive), settings)
    except DataError as error:
        report(f"archive: {error}")
        return
    today = digests_of(archive, inputs, product)
    stated = dict(zip(*pq.read_table(folder / TABLES[2]).to_pydict().values(), strict=True))
    faults = Faults(report)
    for record in sorted({*today, *stated}):
        if record not in stated:
            faults.add("inputs.parquet: records that the dataset lacks",
                       f"inputs.parquet: {record} is in the archive only")  # fmt: skip
        elif record not in today:
            faults.add("inputs.parquet: records that the archive lacks",
                       f"inputs.parquet: {record} is not in the archive any more")  # fmt: skip
        elif stated[record] != today[record]:
            faults.add("inputs.parquet: records that were changed",
                       f"inputs.parquet: {record} is made of other files than the archive holds"
                       " today")  # fmt: skip
    faults.close()
    same = [item for item in inputs if stated.get(item.record) == today[item.record]]
    if not same:
        return
    chosen = np.unique(np.linspace(0, len(same) - 1, min(samples, len(same))).astype(int))
    items = [same[place] for place in chosen.tolist()]
    rows = _candidates(folder / TABLES[0], items)
    lines = _candidates(folder / TABLES[1], items)
    for item in items:
        made = _make(archive, item, product, settings)
        _compare(item.record, made, rows[item.record], lines[item.record], faults)
    faults.close()


def _candidates(path: Path, items: list[Input]) -> dict[str, Candidates]:
    """Rows of a table by record and place."""
    names = [item.record for item in items]
    found: dict[str, Candidates] = {name: {} for name in names}
    for row in pq.read_table(path, filters=[("record", "in", names)]).to_pylist():
        place = None if row["tile_y"] is None else (row["tile_y"], row["tile_x"])
        found[row["record"]][place] = row
    return found


def _make(
    archive: Path, item: Input, product: Product, settings: ShardSettings
) -> dict[Place | None, Row | tuple[str, str]]:
    """What the files give: the row of each candidate, or why there is none."""
    stored = Stored(settings.dtype, settings.step)
    candidates, why = candidates_of([item], lambda one: product.places(archive, one))
    if item.record in why:
        return {None: why[item.record]}
    try:
        opened = product.open(archive, item)
    except DataError as error:
        return {None: _reason(error)}
    made: dict[Place | None, Row | tuple[str, str]] = {}
    for _, place in candidates:
        assert place is not None, "only what cannot be opened has no place"
        try:
            row, image, mask = opened.image(place)
            check_limits(image, product.units)
            pixels = pixel_digest(stored.quantise(image), mask.astype(np.uint8))
            made[place] = {**row, "pixels": pixels}
        except DataError as error:
            made[place] = _reason(error)
    return made


def _reason(error: DataError) -> tuple[str, str]:
    return getattr(error, "reason", "unusable"), getattr(error, "detail", str(error))


def _compare(
    record: str,
    made: dict[Place | None, Row | tuple[str, str]],
    rows: Candidates,
    lines: Candidates,
    faults: Faults,
) -> None:
    """Report where the tables are not what was made again."""
    for place in sorted({*made, *rows, *lines}, key=lambda one: one or (0, 0)):
        again = made.get(place)
        where = record if place is None else f"{record} tile {place}"
        if place in rows:
            row: dict[str, Any] = rows[place]
            where = f"records.parquet row {row['row']} ({where})"
            if again is None:
                fault = "is no tile of the patch"
            elif isinstance(again, tuple):
                fault = f"cannot be made again: {again[1]} [{again[0]}]"
            else:
                fault = _differences(row, again)
        elif place in lines:
            where, reason = f"quarantine.parquet ({where})", lines[place]["reason"]
            found = None if again is None else again[0] if isinstance(again, tuple) else "nothing"
            if found is None:
                fault = "is no candidate of the archive"
            else:
                fault = "" if found == reason else (
                    f"its reason is {reason!r}, the files give {found!r}")  # fmt: skip
        else:
            where, fault = f"quarantine.parquet ({where})", "is in neither rows nor quarantine"
        if fault:
            faults.add("records that are not what the files give", f"{where}: {fault}")


def _differences(row: Row, again: Row) -> str:
    names = [key for key, value in again.items()
             if key not in OF_THE_DATASET and row.get(key) != value]  # fmt: skip
    found = []
    if "pixels" in names:
        names.remove("pixels")
        found.append("its pixels are not what the files give")
    if names:
        found.append(f"{', '.join(names)} are not what the files say")
    return ", ".join(found)
