"""Whether ``records.parquet`` can be true: places, splits, identities, ranges, coordinates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa

from preprocess.archive import parse_record
from preprocess.dataset.patch import disk_pixel_cm
from preprocess.dataset.splits import split_of
from preprocess.quality import refusal
from preprocess.times import DAY_S, tai_seconds
from sunpipe.errors import DataError
from sunpipe.fitsfile import FitsError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.schema import DatasetInfo

Report = Callable[[str], None]
RANGES: dict[str, tuple[float, float]] = {
    "pixel_cm": (1e6, 1e10), "flux_mx": (0, 1e25), "flux_share": (0, 1 + 1e-9),
    "nan_share": (0, 1), "mu": (-1, 1),
}  # fmt: skip


def _places(table: dict[str, list[Any]], info: DatasetInfo, report: Report) -> None:
    count = len(table["row"])
    if table["row"] != list(range(count)) or count != info.counts.get("rows"):
        report(f"records.parquet: rows are not 0 .. {info.counts.get('rows')} - 1")
    sizes = Counter(table["shard"])
    places = set(zip(table["shard"], table["position"], strict=True))
    if places != {(shard, place) for shard, size in sizes.items() for place in range(size)}:
        report("records.parquet: two rows stand at one place, or a place is empty")
    tiles = zip(table["record"], table["tile_y"], table["tile_x"], strict=True)
    if len(set(tiles)) != count:
        report("records.parquet: a tile stands twice")


def _both_sides(table: dict[str, list[Any]], settings: ShardSettings, report: Report) -> None:
    """No HARP, no record and no time near it on both sides."""
    sides: dict[Any, set[str]] = {}
    keys = table["harpnum"] if settings.is_patch else table["record"]
    for key, split in zip(keys, table["split"], strict=True):
        sides.setdefault(key, set()).add(split)
    if both := sorted(key for key, split in sides.items() if len(split) > 1):
        kind = "HARPs" if settings.is_patch else "records"
        report(f"records.parquet: {kind} {both} stand in the training and in the test split")
    if settings.is_patch:
        return
    times = tai_seconds(table["t_rec"])
    order = times.argsort()
    for before, after in pairwise(order):
        apart = times[after] - times[before]
        if table["split"][before] != table["split"][after] and apart < settings.gap_days * DAY_S:
            report(
                f"records.parquet: {table['record'][before]} and {table['record'][after]} stand on"
                f" different sides of the split, {apart / DAY_S:.3f} days apart"
            )


def _splits(
    table: dict[str, list[Any]], info: DatasetInfo, settings: ShardSettings, report: Report
) -> None:
    splits = Counter(table["split"])
    if set(splits) - {"train", "test"} or any(
        splits[split] != info.counts.get(split) for split in ("train", "test")
    ):
        report(f"records.parquet: splits are {dict(splits)}, dataset.json says {info.counts}")
    _both_sides(table, settings, report)


def _one(row: dict[str, Any], settings: ShardSettings) -> str | None:
    """What contradicts itself in one row."""
    name = parse_record(row["record"])
    if (name.harpnum, name.t_rec) != (row["harpnum"], row["t_rec"]):
        return f"HARP {row['harpnum']} at {row['t_rec']} is not its record"
    try:
        split = split_of(name, settings)
    except FitsError as error:
        return f"should be left out: {error.detail}"
    if split != row["split"]:
        return f"stands in the {row['split']} split, its settings say {split}"
    if (
        settings.is_patch
        and row["quality"] is not None
        and (why := refusal(row["quality"], settings.quality))
    ):
        return why
    cards = [row[key] for key in ("crpix1", "crpix2", "crval1", "crval2", "cdelt1", "cdelt2")]
    if any(card is None or not math.isfinite(card) for card in (*cards, row["pixel_cm"])):
        return "has no world coordinates or no pixel size"
    return _scale(row, settings)


def _scale(row: dict[str, Any], settings: ShardSettings) -> str | None:
    """The coordinates' pixel and the stated pixel must be one."""
    if settings.is_patch:
        radius, dsun, robs = row["RSUN_REF"], row["DSUN_OBS"], row["RSUN_OBS"]
        if None in (radius, dsun, robs):
            return "lacks RSUN_REF, DSUN_OBS or RSUN_OBS"
        step = math.radians(row["cdelt1"] / settings.reduce)
        arcsec = 3600 * math.degrees(math.atan(radius * step / dsun))
        pixel = 100 * settings.reduce * arcsec * radius / robs
    else:
        pixel = disk_pixel_cm(row["cdelt1"], row["RSUN_OBS"])
    if not abs(pixel / row["pixel_cm"] - 1) < 1e-9:
        return f"pixel_cm is {row['pixel_cm']:.6g}, its coordinates give {pixel:.6g}"
    return None


def check_records(
    records: pa.Table,
    quarantine: pa.Table | None,
    info: DatasetInfo,
    settings: ShardSettings,
    report: Report,
) -> None:
    """Report everything in the tables that cannot be."""
    table = records.to_pydict()
    _places(table, info, report)
    try:
        _splits(table, info, settings, report)
    except DataError as error:
        report(f"records.parquet: {error}")
    for key, (low, high) in RANGES.items():
        wrong = [v for v in table[key] if v is not None and not low <= v <= high]
        if wrong:
            report(f"records.parquet: {key} has {wrong[0]}, outside of {low:g} .. {high:g}")
    faults: Counter[str] = Counter()
    for row in records.to_pylist():
        try:
            fault = _one(row, settings)
        except DataError as error:
            fault = str(error)
        if fault:
            faults[fault] += 1
            if faults.total() <= 3:
                report(f"records.parquet row {row['row']} ({row['record']}): {fault}")
    if faults.total() > 3:
        report(f"records.parquet: {faults.total()} rows contradict themselves")
    if quarantine is not None:
        rows = set(zip(table["record"], table["tile_y"], table["tile_x"], strict=True))
        lines = zip(*(quarantine[key].to_pylist() for key in ("record", "tile_y", "tile_x")),
                    strict=True)  # fmt: skip
        if both := sum(line in rows for line in lines):
            report(f"quarantine.parquet: {both} of its candidates are rows of the dataset as well")
