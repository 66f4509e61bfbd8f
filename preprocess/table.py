"""``records.parquet`` and ``quarantine.parquet``: columns, types, writing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.patch import number
from sunpipe.files import atomic_path
from sunpipe.shards.schema import QUARANTINE_COLUMNS, RECORD_COLUMNS, SCHEMA

_INTEGERS = {"row", "shard", "position", "harpnum", "tile_y", "tile_x", "quality"}
_STRINGS = {"record", "t_rec", "split", "noaa_ars", "ctype1", "ctype2", "reason", "detail"}

# Keywords of the whole patch, in JSOC's spelling (DATE-OBS is DATE__OBS there).
FLOAT_KEYWORDS = (
    "USFLUX", "MEANGAM", "MEANGBT", "MEANGBZ", "MEANGBH", "MEANJZD", "TOTUSJZ", "MEANALP",
    "MEANJZH", "TOTUSJH", "ABSNJZH", "SAVNCPP", "MEANPOT", "TOTPOT", "MEANSHR", "SHRGT45",
    "R_VALUE", "CMASK", "ERRVF", "ERRGAM", "ERRBT", "ERRBZ", "ERRBH", "ERRJZ", "ERRUSI", "ERRALP",
    "ERRMIH", "ERRTUI", "ERRTAI", "ERRJHT", "ERRMPOT", "ERRTPOT", "ERRMSHA", "NPIX", "SIZE",
    "AREA", "NACR", "SIZE_ACR", "AREA_ACR", "MTOT", "MNET", "MPOS_TOT", "MNEG_TOT", "MMEAN",
    "MSTDEV", "MSKEW", "MKURT", "LAT_MIN", "LON_MIN", "LAT_MAX", "LON_MAX", "LAT_FWT", "LON_FWT",
    "LATFWTPO", "LONFWTPO", "LATFWTNE", "LONFWTNE", "CRLN_OBS", "CRLT_OBS", "DSUN_OBS", "RSUN_OBS",
    "RSUN_REF", "OBS_VR", "OBS_VW", "OBS_VN", "CAR_ROT", "NOAA_AR", "NOAA_NUM", "N_PATCH1",
    "H_MERGE", "H_FAINT", "QUALLEV1",
)  # fmt: skip
TEXT_KEYWORDS = ("DATE__OBS", "T_OBS", "T_FRST1", "T_LAST1", "INSTRUME", "CODEVER7")


def keyword_values(header: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword columns of a record; NaN, infinities and absent cards are null."""
    values: dict[str, Any] = {key: number(header, key) for key in FLOAT_KEYWORDS}
    for key in TEXT_KEYWORDS:
        value = header.get(key, header.get(key.replace("__", "-")))
        values[key] = None if value is None else str(value)
    return values


def _kind(column: str) -> pa.DataType:
    if column in _INTEGERS:
        return pa.int64()
    return pa.string() if column in _STRINGS else pa.float64()


def _schema(columns: Sequence[str]) -> pa.Schema:
    fields = [pa.field(name, _kind(name)) for name in columns]
    return pa.schema(fields, metadata={"sunpipe.schema": str(SCHEMA)})


def records_schema() -> pa.Schema:
    """Columns of ``records.parquet``."""
    schema = _schema(RECORD_COLUMNS)
    for key in FLOAT_KEYWORDS:
        schema = schema.append(pa.field(key, pa.float64()))
    for key in TEXT_KEYWORDS:
        schema = schema.append(pa.field(key, pa.string()))
    return schema


def quarantine_schema() -> pa.Schema:
    """Columns of ``quarantine.parquet``."""
    return _schema(QUARANTINE_COLUMNS)


def write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows as Parquet, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
