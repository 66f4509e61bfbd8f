"""``archive/queries/<digest>.parquet``: the records that one request found, and its report.

The digest is that of the request and of the archive it was put to, so that a
changed request is a new one. What `fetch` brings is the segments of these records.
A request is asked in batches; those that were answered are kept in a folder of the
same name until all are, so that a query that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
import time
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
KEPT_S = 24 * 3600.0  # whereabouts of files do not change within a day


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


def batch_path(answer: Path, record_set: str) -> Path:
    """Where the answer to one batch of a request is kept until the request is answered."""
    return answer.with_suffix("") / f"{digest(record_set)[:16]}.parquet"


def read_batch(path: Path) -> tuple[list[str], dict[str, Any]] | None:
    """Records and counts of a batch; None when it was not answered within `KEPT_S`."""
    try:
        if time.time() - path.stat().st_mtime > KEPT_S:
            return None
    except FileNotFoundError:
        return None
    return _read(path)


def forget_batches(answer: Path) -> None:
    """Remove the batches of a request that is answered."""
    if (folder := answer.with_suffix("")).is_dir():
        shutil.rmtree(folder)


def read_answer(path: Path) -> list[str]:
    """Records of a request that was answered.

    Raises
    ------
    DataError
        When the file is damaged or holds what is no record.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[str], dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); run sunpipe query again") from None
    if (table.schema.metadata or {}).get(b"sunpipe.query") != SCHEMA.encode():
        raise DataError(f"{path} is not the answer to a query; run sunpipe query again")
    records: list[str] = table.column("record").to_pylist()
    for record in records:
        parse_record(record)
    report: dict[str, Any] = json.loads(table.schema.metadata[b"report"])
    return records, report
