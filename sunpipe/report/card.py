"""Data card: which observations, in what units and scale, what was kept and what was not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sunpipe.errors import DataError
from sunpipe.report import numbers
from sunpipe.report.pictures import colour_limit, gradient, reduce, tile
from sunpipe.report.section import Section, section
from sunpipe.report.sources import Sources
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id

MOST_RECORDS = 24  # rows of the table
MOST_PICTURES = 6
LARGEST = 360  # pixels of the long side of a whole patch


def archived(sources: Sources) -> dict[str, Path]:
    """Br files of the archive by their record's (series, HARP, T_REC) folder name."""
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path
        for path in sorted(sources.layout.archive.glob("*/*/*/*.Br.fits"))
    }


def quarantined(reader: ShardReader) -> list[dict[str, Any]]:
    """Record, reason and detail of every candidate that was not used.

    Raises
    ------
    DataError
        The table is missing or damaged.
    """
    path = reader.folder / "quarantine.parquet"
    try:
        return pq.read_table(path, columns=["record", "reason", "detail"]).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path.name} ({error}); run sunpipe verify") from None


def record_rows(reader: ShardReader, lost: Counter[str]) -> list[dict[str, Any]]:
    """One row per record of the dataset, in order: what identifies it and what became of it.

    Parameters
    ----------
    lost : Counter
        Quarantined candidates of each record.
    """
    columns = ["record", "harpnum", "t_rec", "split", "noaa_ars", "mu"]
    flux = ["USFLUX"] if "USFLUX" in reader.records.column_names else []
    rows: dict[str, dict[str, Any]] = {}
    for line in reader.records.select(columns + flux).to_pylist():
        record = line["record"]
        row = rows.setdefault(record, {"USFLUX": None, **line, "kept": 0, "lost": lost[record]})
        row["kept"] += 1
    for record in sorted(lost.keys() - rows.keys()):
        rows[record] = {"record": record, "kept": 0, "lost": lost[record], "split": "none"}
    return list(rows.values())


def reasons(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reasons for quarantine, most frequent first, with one example each."""
    count = Counter(line["reason"] for line in lines)
    example = {line["reason"]: line["detail"] for line in reversed(lines)}
    return [{"reason": reason, "count": many, "example": example[reason]}
            for reason, many in count.most_common()]  # fmt: skip


def patches(sources: Sources, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Whole patches of the archive on one colour scale; empty where the archive is not there."""
    from sunpipe.fits import read_segment

    files = archived(sources)
    chosen: list[tuple[dict[str, Any], np.ndarray]] = []
    for row in records:
        if "t_rec" not in row or len(chosen) == MOST_PICTURES:
            continue
        folder = row["t_rec"].replace(".", "").replace(":", "")
        path = files.get(f"{row['harpnum']}/{folder}")
        if path is None:
            continue
        try:
            chosen.append((row, read_segment(path).data))
        except DataError:
            continue  # the dataset is shown without it; sunpipe verify and shard say why
    if not chosen:
        return {"patches": []}
    # One factor for all keeps one physical scale.
    factor = max(-(-max(field.shape) // LARGEST) for _, field in chosen)
    chosen = [(row, reduce(field, factor)) for row, field in chosen]
    limit = colour_limit(field for _, field in chosen)
    pictures = [
        tile(field, limit, f"Br of HARP {row['harpnum']}", LARGEST, title=f"HARP {row['harpnum']}",
             time=row["t_rec"], width=field.shape[1], split=row["split"])
        for row, field in chosen
    ]  # fmt: skip
    return {"patches": pictures, "limit": limit, "gradient": gradient()}


def facts_table(reader: ShardReader) -> list[tuple[str, str]]:
    """The card itself: label and text."""
    info, pixel = reader.info, float(np.median(reader.pixel_cm))
    side = pixel * info.resolution / 1e8
    units = sorted(set(info.units))
    channels = ", ".join(info.channels) + f" ({', '.join(units)})"
    stride = f"every {info.stride} pixels" if info.stride else "one per patch"
    counts = info.counts
    return [
        ("Dataset", info.name),
        ("Channels", channels),
        ("Image", f"{info.resolution} × {info.resolution} pixels of"
                  f" {numbers.with_unit(pixel / 1e5, 'km')}, {side:.1f} Mm across"),
        ("Cut", f"{info.tile} × {info.tile} native pixels, {stride}, averaged"
                f" {info.reduce} × {info.reduce}"),
        ("Candidates", f"{counts['records_in']:,} = {counts['rows']:,} kept"
                       f" + {counts['quarantined']:,} quarantined"),
        ("Split by HARP", f"{counts.get('train', 0):,} to train,"
                          f" {counts.get('test', 0):,} held out"),
        ("Stored as", f"{info.dtype}, largest rounding error"
                      f" {numbers.with_unit(info.max_error, units[0])}"),
        ("Content", f"SHA-256 {dataset_id(info)[:16]}… in {len(info.shards)} shards"),
    ]  # fmt: skip


def build(sources: Sources, reader: ShardReader) -> dict[str, Any]:
    """What ``card.html`` shows."""
    lines = quarantined(reader)
    records = record_rows(reader, Counter(line["record"] for line in lines))
    return {
        "card": facts_table(reader),
        "records": records[:MOST_RECORDS],
        "more": max(0, len(records) - MOST_RECORDS),
        "reasons": reasons(lines),
        "overlap": bool(reader.info.stride) and reader.info.stride < reader.info.tile,
        "stride": reader.info.stride,
        **patches(sources, records),
    }


def card(sources: Sources) -> Section:
    """The data card."""
    found = sources.dataset
    return section("card", "Data card", sources, (found,), lambda: build(sources, found.value))  # type: ignore[arg-type]
