"""Tables of a dataset: columns, types, writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.dataset.patch import number
from sunpipe.files import atomic_path
from sunpipe.shards.schema import QUARANTINE_COLUMNS, RECORD_COLUMNS, SCHEMA

_INTEGERS = {"row", "shard", "position", "harpnum", "tile_y", "tile_x", "quality"}
_STRINGS = {"record", "t_rec", "split", "noaa_ars", "pixels", "companions", "notes", "ctype1",
            "ctype2", "cunit1", "cunit2", "reason", "detail", "digest"}  # fmt: skip
_FLAGS = {"simulated"}

# Keywords of the whole patch, in JSOC's spelling (DATE-OBS is DATE__OBS there).
SHARP_FLOATS = (
    "USFLUX", "MEANGAM", "MEANGBT", "MEANGBZ", "MEANGBH", "MEANJZD", "TOTUSJZ", "MEANALP",
    "MEANJZH", "TOTUSJH", "ABSNJZH", "SAVNCPP", "MEANPOT", "TOTPOT", "MEANSHR", "SHRGT45",
    "R_VALUE", "CMASK", "ERRVF", "ERRGAM", "ERRBT", "ERRBZ", "ERRBH", "ERRJZ", "ERRUSI", "ERRALP",
    "ERRMIH", "ERRTUI", "ERRTAI", "ERRJHT", "ERRMPOT", "ERRTPOT", "ERRMSHA", "NPIX", "SIZE",
    "AREA", "NACR", "SIZE_ACR", "AREA_ACR", "MTOT", "MNET", "MPOS_TOT", "MNEG_TOT", "MMEAN",
    "MSTDEV", "MSKEW", "MKURT", "LAT_MIN", "LON_MIN", "LAT_MAX", "LON_MAX", "LAT_FWT", "LON_FWT",
    "LATFWTPO", "LONFWTPO", "LATFWTNE", "LONFWTNE", "CRLN_OBS", "CRLT_OBS", "DSUN_OBS", "RSUN_OBS",
    "RSUN_REF", "OBS_VR", "OBS_VW", "OBS_VN", "CAR_ROT", "NOAA_AR", "NOAA_NUM", "N_PATCH1",
    "H_MERGE", "H_FAINT", "QUALLEV1",
    "SIMFLUX", "SIMALPHA", "SIMSEP", "SIMTILT",  # the truth of simulated regions
)  # fmt: skip
SHARP_TEXTS = ("DATE__OBS", "T_OBS", "T_FRST1", "T_LAST1", "INSTRUME", "CODEVER7")

# Of the first channel of a disk, after calibration.
DISK_FLOATS = ("WAVELNTH", "EXPTIME", "RSUN_OBS", "DSUN_OBS", "RSUN_REF", "CRLN_OBS", "CRLT_OBS",
               "CAR_ROT", "CROTA2", "OBS_VR")  # fmt: skip
DISK_TEXTS = ("DATE__OBS", "T_OBS", "INSTRUME", "TELESCOP", "LVL_NUM")


def keyword_values(
    header: Mapping[str, Any], floats: Sequence[str], texts: Sequence[str]
) -> dict[str, Any]:
    """Keyword columns of a record; NaN, infinities and absent cards are null."""
    values: dict[str, Any] = {key: number(header, key) for key in floats}
    for key in texts:
        value = header.get(key, header.get(key.replace("__", "-")))
        values[key] = None if value is None else str(value)
    return values


def _kind(column: str) -> pa.DataType:
    if column in _INTEGERS:
        return pa.int64()
    if column in _FLAGS:
        return pa.bool_()
    return pa.string() if column in _STRINGS else pa.float64()


def _schema(columns: Sequence[str]) -> pa.Schema:
    fields = [pa.field(name, _kind(name)) for name in columns]
    return pa.schema(fields, metadata={"sunpipe.schema": str(SCHEMA)})


def records_schema(patches: bool) -> pa.Schema:
    """Columns of ``records.parquet``, for patches or for disks."""
    schema = _schema(RECORD_COLUMNS)
    for key in SHARP_FLOATS if patches else DISK_FLOATS:
        schema = schema.append(pa.field(key, pa.float64()))
    for key in SHARP_TEXTS if patches else DISK_TEXTS:
        schema = schema.append(pa.field(key, pa.string()))
    return schema


def quarantine_schema() -> pa.Schema:
    """Columns of ``quarantine.parquet``."""
    return _schema(QUARANTINE_COLUMNS)


def inputs_schema() -> pa.Schema:
    """Columns of ``inputs.parquet``: every record and what it was made of."""
    return _schema(("record", "digest"))


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> int:
    """Write tables one after the other as one Parquet file; returns the number of rows.

    Only one of them is in memory at a time.
    """
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for table in tables:
            writer.write_table(table)
            count += table.num_rows
    return count
