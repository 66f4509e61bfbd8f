"""``archive/simulated.parquet``: the inputs of all simulated records, read and written here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.manifest import read_manifest
from preprocess.simulation.keywords import TRUTH_CARDS
from preprocess.simulation.record import SERIES
from sunpipe.errors import DataError
from sunpipe.files import atomic_path
from sunpipe.fitsfile import units

TABLE = "simulated.parquet"
SCHEMA = 1
SCHEME = "simulated:"  # of the manifest's url, before the digest of the plan
_HEADER_CARDS = {"HARPNUM": "harpnum", "T_REC": "t_rec", "TELESCOP": "telescop",
                 "CRVAL1": "carrington_lon_deg", "CRVAL2": "lat_deg",
                 "GENHASH": "plan"} | TRUTH_CARDS  # fmt: skip
_INTEGERS, _STRINGS = {"harpnum", "step", "seed"}, {"record", "t_rec", "telescop", "plan"}


def _schema() -> pa.Schema:
    def kind(name: str) -> pa.DataType:
        if name in _INTEGERS:
            return pa.int64()
        return pa.string() if name in _STRINGS else pa.float64()

    names = ["record", *_HEADER_CARDS.values()]
    return pa.schema([pa.field(name, kind(name)) for name in names],
                     metadata={"sunpipe.simulated": str(SCHEMA)})  # fmt: skip


def truth_row(record: str, path: Path) -> dict[str, Any]:
    """Row of ``simulated.parquet`` from the header of a record's Br."""
    header = units(path.read_bytes(), path.name)[-1].header
    lacking = [card for card in _HEADER_CARDS if header.get(card) is None]
    if lacking or header["TELESCOP"] != "SIMULATED":
        raise DataError(f"{path} is no simulated record; remove it and run sunpipe simulate again")
    return {"record": record} | {name: header[card] for card, name in _HEADER_CARDS.items()}


def read_truth(archive: Path) -> pa.Table:
    """``simulated.parquet``: the inputs of every simulated record, by HARP and time.

    Raises
    ------
    DataError
        When it is damaged or of another version.
    """
    path = archive / TABLE
    if not path.is_file():
        return _schema().empty_table()
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it and run sunpipe simulate"
                        " again") from None  # fmt: skip
    if (table.schema.metadata or {}).get(b"sunpipe.simulated") != str(SCHEMA).encode():
        raise DataError(f"{path} is not of version {SCHEMA}; remove it and run sunpipe simulate"
                        " again")  # fmt: skip
    return table


def write_truth(archive: Path) -> int:
    """Bring the table up to the manifest; rows that are new come from the headers."""
    held = read_truth(archive)
    rows = dict(zip(held.column("record").to_pylist(), held.to_pylist(), strict=True))
    found = []
    for (record, segment), entry in read_manifest(archive).items():
        if segment == "Br" and entry.state == "fetched" and record.startswith(f"{SERIES}["):
            row = rows.get(record)
            if row is None or SCHEME + row["plan"] != entry.url:
                row = truth_row(record, archive / entry.path)
            found.append(row)
    found.sort(key=lambda row: (row["harpnum"], row["t_rec"]))
    table = pa.Table.from_pylist(found, schema=_schema())
    if table != held or not (archive / TABLE).is_file():
        with atomic_path(archive / TABLE) as temporary:
            pq.write_table(table, temporary)
    return len(found)
