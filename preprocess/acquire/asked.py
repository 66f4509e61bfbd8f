"""``archive/queries/<digest>.parquet``: the records that one request found, and its report.

The digest is that of the request and of the archive it was put to, so that a
changed request is a new one. What `fetch` brings is the segments of these records.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.archive import parse_record
from sunpipe.config import to_dict
from sunpipe.errors import DataError
from sunpipe.files import atomic_path, digest
from sunpipe.query_settings import QueryRequest

FOLDER = "queries"
SCHEMA = "1"


def answer_path(archive: Path, request: QueryRequest, url: str) -> Path:
    """Where the answer to a request is kept."""
    identity = digest([to_dict(request), url.rstrip("/")])
    return archive / FOLDER / f"{identity[:16]}.parquet"


def write_answer(path: Path, records: Sequence[str], report: dict[str, Any]) -> None:
    """Keep the records of a request, sorted, and its report."""
    schema = pa.schema(
        [pa.field("record", pa.string())],
        metadata={"sunpipe.query": SCHEMA, "report": json.dumps(report)},
    )
    with atomic_path(path) as temporary:
        pq.write_table(pa.table({"record": sorted(records)}, schema=schema), temporary)


def read_answer(path: Path) -> list[str]:
    """Records of a request that was answered.

    Raises
    ------
    DataError
        When the file is damaged or holds what is no record.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); run sunpipe query again") from None
    if (table.schema.metadata or {}).get(b"sunpipe.query") != SCHEMA.encode():
        raise DataError(f"{path} is not the answer to a query; run sunpipe query again")
    records: list[str] = table.column("record").to_pylist()
    for record in records:
        parse_record(record)
    return records
