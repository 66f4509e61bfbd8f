"""Whether rows and quarantine together are all candidates: tile grids, reasons, inputs."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocess.archive import parse_record
from preprocess.dataset.check_table import NAMED, NULL, Columns, Records
from sunpipe.errors import DataError
from sunpipe.shard_settings import ShardSettings
from sunpipe.shards.cut import tile_grid

OF_TILES = {"low_flux", "nan_share", "overflow"}  # a tile was looked at; all others: the record
REASONS = OF_TILES | {
    "all_nan", "blank", "changed", "checksum", "corrupt", "cutout", "different_records",
    "different_shapes", "duplicate", "eclipse", "exposure", "geometry", "missing_file",
    "missing_pixels", "missing_segment", "negative", "no_image", "no_keywords", "no_table",
    "not_fits", "quality", "saturated", "split_gap", "statistics", "time", "too_large",
    "truncated", "unknown_unit", "unmatched", "unsupported", "unusable", "wrong_instrument",
    "wrong_level", "wrong_projection", "wrong_record", "wrong_segment", "wrong_wavelength",
}  # fmt: skip
FARTHEST = 1 << 16  # pixels; a larger place is in no image of SDO, nor its grid in memory
_DIGEST = re.compile(r"[0-9a-f]{64}")
_grid = lru_cache(maxsize=1 << 16)(tile_grid)


def check_quarantine(records: Records) -> None:
    """Every line is a candidate of its record, with a reason that sunpipe gives."""
    lines = records.lines
    for name in ("shard", "record", "t_rec", "reason", "detail"):
        records.fault_of_line(lines.nulls(name), f"{name} is null")
    reasons, codes = lines.words("reason")
    known = np.array([reason in REASONS for reason in reasons], bool)
    records.fault_of_line(
        ~known[codes] if len(reasons) else np.zeros(0, bool),
        lambda n: f"{reasons[codes[n]]!r} is no reason of sunpipe's",
    )
    details, which = lines.words("detail")
    empty = np.array([not detail for detail in details], bool)
    if len(details):
        records.fault_of_line(empty[which], "has no detail")
    y, x = lines.whole("tile_y"), lines.whole("tile_x")
    records.fault_of_line((y == NULL) != (x == NULL), "has half a place")
    of_tiles = np.array([reason in OF_TILES for reason in reasons], bool)
    if len(reasons):
        records.fault_of_line((y == NULL) & of_tiles[codes], "a tile's reason, but no place")
    harps, (times, when) = lines.whole("harpnum"), lines.words("t_rec")
    first = np.unique(records.of_line, return_index=True)[1]
    for line in first.tolist():
        fault = None
        try:
            of = parse_record(records.names[records.of_line[line]])
            harp = NULL if of.harpnum is None else of.harpnum
            if (harps[line], times[when[line]]) != (harp, of.t_rec):
                fault = "HARP and time are not its record's"
        except DataError as error:
            fault = str(error)
        if fault:
            records.faults.add("quarantine.parquet: identities that cannot be",
                               f"{records.line(line)}: {fault}")  # fmt: skip
    again = np.zeros(len(records.names), np.int64)
    again[records.of_line[first]] = first
    same = again[records.of_line]
    records.fault_of_line((harps != harps[same]) | (when != when[same]),
                          "HARP and time are not those of its record's first line")  # fmt: skip


def _expected(settings: ShardSettings, last: tuple[int, int]) -> NDArray[np.int64]:
    """The grid of a patch whose last tile is at `last`."""
    if not settings.is_patch:
        return np.zeros((1, 2), np.int64)
    # of a tile that is larger than the patch the start is -(tile - size) / 2, rounded down
    if settings.stride == 0:
        return np.array([last], np.int64)
    tile = settings.tile
    shape = tuple(tile + (place if place > 0 else 2 * place) for place in last)
    return _grid((shape[0], shape[1]), tile, settings.stride)


def patch_sizes(records: Records, settings: ShardSettings) -> NDArray[np.int64]:
    """Height and width of each patch as its last tile tells them.

    A centred tile tells the size up to one: the smaller is given.

    Returns
    -------
    ndarray of int64, shape (records, 2)
    """
    found = np.full((len(records.names), 2), NULL, np.int64)
    for axis, name in enumerate(("tile_y", "tile_x")):
        for table, codes in ((records.rows, records.of_row), (records.lines, records.of_line)):
            np.maximum.at(found[:, axis], codes, table.whole(name))
    centred = (found <= 0) | (settings.stride == 0)
    return np.where(found == NULL, NULL, settings.tile + np.where(centred, 2 * found, found))


def check_tiles(records: Records, settings: ShardSettings) -> None:
    """Rows and lines of each record are its whole grid of tiles, each once, or one line."""
    y, x = (
        np.concatenate([records.rows.whole(name), records.lines.whole(name)])
        for name in ("tile_y", "tile_x")
    )
    codes = np.concatenate([records.of_row, records.of_line])
    order = np.lexsort((x, y, codes))
    places = np.stack([y[order], x[order]], axis=1)
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    stops = np.append(starts[1:], len(order))
    lone = stops - starts == 1
    if settings.is_patch and settings.stride == 0:
        wrong = ~lone  # one tile, wherever the size puts it
    else:
        wrong = np.ones(len(starts), bool)
        wrong[lone & (places[starts, 0] == NULL)] = False  # could not be opened
    for n in np.flatnonzero(wrong).tolist():
        start, stop = int(starts[n]), int(stops[n])
        fault = _off_grid(places[start:stop], settings)
        if fault:
            member = int(order[start])
            if fault[1] is not None:
                member = int(order[start + fault[1]])
            rows = records.rows.count
            where = records.row(member) if member < rows else records.line(member - rows)
            records.faults.add("records.parquet and quarantine.parquet: tiles that are no grid",
                               f"{where}: {fault[0]}")  # fmt: skip


def _off_grid(places: NDArray[np.int64], settings: ShardSettings) -> tuple[str, int | None] | None:
    """What is wrong with the sorted places of a record, and with which of them."""
    outside = (np.abs(places) > FARTHEST).any(axis=1)
    far = np.flatnonzero(outside & (places != NULL).all(axis=1))
    if len(far):
        n = int(far[0])
        return f"tile_y, tile_x = {tuple(places[n].tolist())} is in no patch", n
    expected = _expected(settings, (int(places[-1, 0]), int(places[:, 1].max())))
    if np.array_equal(places, expected):
        return None
    if (places[:, 0] == NULL).any():
        return "could not be opened, but has other candidates", None
    twice = np.flatnonzero((places[1:] == places[:-1]).all(axis=1))
    if len(twice):
        n = int(twice[0])
        return f"its tile at {tuple(places[n].tolist())} stands twice", n + 1
    allowed = {tuple(place) for place in expected.tolist()}
    for n, place in enumerate(places.tolist()):
        if tuple(place) not in allowed:
            return f"tile_y, tile_x = {tuple(place)} is not on the grid of the patch", n
    return f"has {len(places)} tiles in rows and quarantine, its grid has {len(expected)}", None


def check_inputs(records: Records, inputs: Columns) -> None:
    """``inputs.parquet`` lists exactly the records of rows and quarantine, each with a digest."""
    listed = inputs.column("record")
    ours = pa.array(records.names, pa.string())
    digests, codes = inputs.words("digest")
    if len(listed.unique()) != len(listed):
        records.report("inputs.parquet: a record stands twice")
    bad = [n for n, text in enumerate(digests) if not _DIGEST.fullmatch(str(text))]
    for line in np.flatnonzero(np.isin(codes, bad))[:NAMED].tolist():
        records.report(f"inputs.parquet line {line} ({listed[line]}): has no digest")
    for one, other, text in (
        (ours, listed, "has candidates, but inputs.parquet does not list it"),
        (listed, ours, "is in inputs.parquet, but has neither rows nor quarantine"),
    ):
        absent = one.filter(pa.compute.invert(pa.compute.is_in(one, value_set=other)))
        for name in absent[:NAMED].to_pylist():
            records.report(f"inputs.parquet: {name} {text}")
        if len(absent) > NAMED:
            records.report(f"inputs.parquet: {len(absent)} records in all: each {text}")
