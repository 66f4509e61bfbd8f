"""Tampering with a dataset, and sealing it again as somebody would who knows how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.shard import shard
from preprocess.verify import verify
from sunpipe.config import validate
from sunpipe.files import sha256
from sunpipe.shards.schema import TABLES

Values = list[Any]
NAMES = {"records": 0, "quarantine": 1, "inputs": 2}


def native_root(tiny_root: Path, folder: Path) -> Path:
    """A data root at `folder` with the sample archive and a dataset of native pixels."""
    shutil.copytree(tiny_root / "archive", folder / "archive")
    settings = {"stride": 64, "reduce": 1, "min_flux_mx": 5e20, "test_harps": [6060],
                "images_per_shard": 24}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUNPIPE_ROOT", str(folder))
        shard(validate({"name": "native", "dataset": "native", "shard": settings}))
    return folder


def edit_info(folder: Path, **changes: Any) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def seal(folder: Path) -> None:
    """Digests and counts as if nothing had happened."""
    info = json.loads((folder / "dataset.json").read_text())
    rows, lines = (pq.read_table(folder / name) for name in TABLES[:2])
    splits = rows["split"].to_pylist()
    edit_info(
        folder,
        shards={name: sha256(folder / name) for name in info["shards"]},
        files={name: sha256(folder / name) for name in TABLES},
        counts={"records_in": rows.num_rows + lines.num_rows, "rows": rows.num_rows,
                "quarantined": lines.num_rows,
                **{split: splits.count(split) for split in ("train", "test")}},
    )  # fmt: skip


def edit(folder: Path, table: str, **columns: Callable[[Values], Values]) -> None:
    path = folder / TABLES[NAMES[table]]
    found = pq.read_table(path)
    for name, change in columns.items():
        field = found.schema.field(name)
        values = pa.array(change(found[name].to_pylist()), field.type)
        found = found.set_column(found.schema.get_field_index(name), field, values)
    pq.write_table(found, path)
    seal(folder)


def drop(folder: Path, table: str, wrong: Callable[[dict[str, Any]], bool]) -> int:
    path = folder / TABLES[NAMES[table]]
    found = pq.read_table(path)
    kept = [row for row in found.to_pylist() if not wrong(row)]
    pq.write_table(pa.Table.from_pylist(kept, schema=found.schema), path)
    seal(folder)
    return found.num_rows - len(kept)


def rows_of(folder: Path, table: str = "records") -> list[dict[str, Any]]:
    return pq.read_table(folder / TABLES[NAMES[table]]).to_pylist()


def only(place: int, change: Callable[[Any], Any]) -> Callable[[Values], Values]:
    return lambda values: [change(v) if n == place else v for n, v in enumerate(values)]


def all_of(change: Callable[[Any], Any]) -> Callable[[Values], Values]:
    return lambda values: [change(value) for value in values]


def words(folder: Path, archive: Path | None = None) -> str:
    return "\n".join(verify(folder, archive))
