"""``sunpipe verify``: read everything of a dataset again and list what is wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.build import TABLES, check_splits, shard_name
from preprocess.table import quarantine_schema, records_schema
from sunpipe.errors import DataError
from sunpipe.files import sha256
from sunpipe.paths import Layout
from sunpipe.shards.cut import SCALES
from sunpipe.shards.guard import check_shard
from sunpipe.shards.schema import DatasetInfo, read_info

MAX_GAUSS = 10000.0  # no photospheric field is stronger; HMI's inversion stops at 5000 G
BATCH = 64
_SUM = re.compile(r"[0-9a-f]{64}")
Report = Callable[[str], None]


def find_dataset(name: str) -> Path:
    """Folder of a dataset, from its name or its path."""
    named = Layout.current().shards(name) if "/" not in name else Path(name)
    return named if named.is_dir() or not Path(name).is_dir() else Path(name)


def _check_info(info: DatasetInfo, report: Report) -> None:
    expected = [shard_name(number) for number in range(len(info.shards))]
    if sorted(info.shards) != expected:
        report(f"dataset.json: shards are {sorted(info.shards)}, expected {expected}")
    if sorted(info.files) != sorted(TABLES):
        report(f"dataset.json: files are {sorted(info.files)}, expected {sorted(TABLES)}")
    for name, stated in {**info.shards, **info.files}.items():
        if not _SUM.fullmatch(str(stated)):
            report(f"dataset.json: {name} has no SHA-256")
    if info.tile != info.resolution * info.reduce:
        report(f"dataset.json: {info.tile} pixels reduced by {info.reduce} are not"
               f" {info.resolution}")  # fmt: skip
    if len(info.channels) != len(info.units) or info.scale != SCALES.get(info.dtype):
        report("dataset.json: channels, units, dtype and scale do not fit each other")
    counts = info.counts
    if counts.get("records_in") != counts.get("rows", 0) + counts.get("quarantined", 0):
        report(f"dataset.json: records in are not rows + quarantined: {counts}")


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
            report(f"{name}: its content is not what was published (SHA-256)")
        else:
            good.add(name)
    for path in sorted(folder.glob("*.h5")):
        if path.name not in info.shards:
            report(f"{path.name}: is no part of the dataset")
    return good


def _read_table(path: Path, schema: pa.Schema, report: Report) -> dict[str, list[Any]] | None:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        report(f"{path.name}: cannot be read ({error})")
        return None
    if not table.schema.equals(schema):
        report(f"{path.name}: its columns are not those of this version")
        return None
    return table.to_pydict()


def _range(name: str, values: list[Any], low: float, high: float, report: Report) -> None:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
    bad = ~((numbers >= low) & (numbers <= high))
    if bad.any():
        report(f"records.parquet: {name} of row {int(np.flatnonzero(bad)[0])} is outside"
               f" {low:g} .. {high:g}")  # fmt: skip


def _check_records(records: dict[str, list[Any]], info: DatasetInfo, report: Report) -> None:
    count = len(records["row"])
    if records["row"] != list(range(count)) or count != info.counts.get("rows"):
        report(f"records.parquet: rows are not 0 .. {info.counts.get('rows')} - 1")
    sizes = Counter(records["shard"])
    places = set(zip(records["shard"], records["position"], strict=True))
    if places != {(shard, place) for shard, size in sizes.items() for place in range(size)}:
        report("records.parquet: two rows stand at one place, or a place is empty")
    tiles = zip(records["record"], records["tile_y"], records["tile_x"], strict=True)
    if len(set(tiles)) != count:
        report("records.parquet: a tile stands twice")
    splits = Counter(records["split"])
    if set(splits) - {"train", "test"} or any(
        splits[split] != info.counts.get(split) for split in ("train", "test")
    ):
        report(f"records.parquet: splits are {dict(splits)}, dataset.json says {info.counts}")
    try:
        check_splits([{"harpnum": harp, "split": split} for harp, split in
                      zip(records["harpnum"], records["split"], strict=True)])  # fmt: skip
    except DataError as error:
        report(f"records.parquet: {error}")
    _range("pixel_cm", records["pixel_cm"], 1e6, 1e10, report)
    _range("flux_mx", records["flux_mx"], 0, 1e25, report)
    _range("nan_share", records["nan_share"], 0, 1, report)
    _range("mu", [0 if mu is None else mu for mu in records["mu"]], -1, 1, report)


def _check_shard(path: Path, info: DatasetInfo, shares: list[float], report: Report) -> None:
    """Read every chunk; `shares` are the invalid shares that the records state."""
    import h5py
    import hdf5plugin  # noqa: F401  registers bitshuffle

    shape = (len(shares), len(info.channels), info.resolution, info.resolution)
    with h5py.File(path, "r") as file:
        check_shard(file, path.name)
        images, masks = file["images"], file["mask"]
        if images.shape != shape or images.dtype != info.dtype or masks.dtype != np.uint8:
            report(f"{path.name}: {images.shape} {images.dtype}, expected {shape} {info.dtype}")
            return
        if float(file.attrs["scale"]) != info.scale:
            report(f"{path.name}: scale is {file.attrs['scale']}, dataset.json says {info.scale}")
        for start in range(0, len(shares), BATCH):
            field = images[start : start + BATCH].astype(np.float64) * info.scale
            mask = masks[start : start + BATCH]
            for place in range(len(mask)):
                _check_image(field[place], mask[place], shares[start + place],
                             f"{path.name} image {start + place}", report)  # fmt: skip


def _check_image(
    field: np.ndarray, mask: np.ndarray, share: float, name: str, report: Report
) -> None:
    if not np.isin(mask, (0, 1)).all():
        report(f"{name}: the mask is not 0 or 1")
    elif abs(1.0 - mask.mean() - share) > 1e-9:
        report(f"{name}: {1.0 - mask.mean():.4f} is invalid, its record says {share:.4f}")
    if not np.isfinite(field).all() or np.abs(field).max() > MAX_GAUSS:
        report(f"{name}: a value is no field in gauss")
    elif np.abs(field[:, mask == 0]).max(initial=0.0) != 0:
        report(f"{name}: an invalid pixel has a value")


def verify(folder: Path) -> list[str]:
    """Everything that is wrong with a dataset, in words; empty when nothing is.

    Parameters
    ----------
    folder : Path
        ``shards/<dataset>``.
    """
    problems: list[str] = []
    report = problems.append
    try:
        info = read_info(folder)
        _check_info(info, report)
        good = _check_files(folder, info, report)
    except (DataError, AttributeError, TypeError) as error:
        return [*problems, str(error) if isinstance(error, DataError) else
                f"dataset.json is not a dataset description: {error}"]  # fmt: skip
    records = quarantine = None
    if TABLES[0] in good:
        records = _read_table(folder / TABLES[0], records_schema(), report)
    if TABLES[1] in good:
        quarantine = _read_table(folder / TABLES[1], quarantine_schema(), report)
    if quarantine is not None and len(quarantine["reason"]) != info.counts.get("quarantined"):
        report("quarantine.parquet: its rows are not those that dataset.json counts")
    if records is None:
        return problems
    _check_records(records, info, report)
    shares: dict[int, list[float]] = {}
    for shard, share in zip(records["shard"], records["nan_share"], strict=True):
        shares.setdefault(shard, []).append(share)
    if {shard_name(number) for number in shares} != set(info.shards):
        report("records.parquet: its shards are not those of dataset.json")
    for number, stated in sorted(shares.items()):
        if shard_name(number) in good:
            try:
                _check_shard(folder / shard_name(number), info, stated, report)
            except (DataError, OSError, KeyError, TypeError, ValueError) as error:
                report(f"{shard_name(number)}: {error}")
    return problems
