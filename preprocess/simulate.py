"""A simulated archive: SHARP-like records of known truth, for tests without a network.

Every record is a pure function of the plan, its HARP number and its step, so any number
of processes writes the same bytes, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.journal import Journal, merge_dead, open_journal, stamp
from preprocess.manifest import Entry, Manifest, read_manifest
from preprocess.simulation.keywords import TRUTH_CARDS
from preprocess.simulation.record import (
    SERIES,
    VISIBLE_DEG,
    Made,
    Plan,
    harp,
    record_name,
    write_record,
)
from sunpipe.errors import DataError, UsageError
from sunpipe.files import atomic_path, sha256
from sunpipe.fitsfile import units
from sunpipe.lock import exclusive, sweep
from sunpipe.stage import Result, log

TABLE = "simulated.parquet"
SCHEMA = 1
FIRST_HARP = 900_001  # real HARPs have up to five digits
LAST_HARP = 9_999_999
STEPS = 12  # records of a HARP when --harps is not given
BYTES_PER_PIXEL, BYTES_PER_FILE = 1.3, 12_000  # measured: 7.4 per pixel of six segments
SCHEME = "simulated:"
_HEADER_CARDS = {"HARPNUM": "harpnum", "T_REC": "t_rec", "TELESCOP": "telescop",
                 "CRVAL1": "carrington_lon_deg", "CRVAL2": "lat_deg",
                 "GENHASH": "plan"} | TRUTH_CARDS  # fmt: skip
_INTEGERS, _STRINGS = {"harpnum", "step", "seed"}, {"record", "t_rec", "telescop", "plan"}


@dataclass(frozen=True)
class Request:
    """How much of a plan is wanted.

    Attributes
    ----------
    plan : Plan
    records : int
        The first so many, HARP by HARP.
    first_harp : int
        HARPNUM of the first.
    """

    plan: Plan
    records: int
    first_harp: int = FIRST_HARP

    def __post_init__(self) -> None:
        if self.records < 1:
            raise UsageError(f"--records {self.records}: ask for at least 1 record")
        if self.plan.cadence_s < 720 or self.plan.cadence_s % 720:
            raise UsageError(f"--cadence {self.plan.cadence_s}: a multiple of 720 seconds")
        if self.plan.drift_deg > VISIBLE_DEG:
            days = VISIBLE_DEG / 13.2
            raise UsageError(
                f"{self.plan.steps} records per HARP at {self.plan.cadence_s} s last longer than"
                f" the {days:.1f} days that a region can be seen; ask for more --harps"
            )
        if self.first_harp < FIRST_HARP or self.last_harp > LAST_HARP:
            raise UsageError(
                f"HARP numbers {self.first_harp} to {self.last_harp} are not between {FIRST_HARP}"
                f" and {LAST_HARP}; ask for fewer records or HARPs"
            )

    @property
    def harps(self) -> int:
        """How many HARPs hold the records."""
        return -(-self.records // self.plan.steps)

    @property
    def last_harp(self) -> int:
        """HARPNUM of the last."""
        return self.first_harp + self.harps - 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in range(self.records):
            yield self.first_harp + number // self.plan.steps, number % self.plan.steps

    @property
    def bytes(self) -> int:
        """About how many bytes all records take."""
        sizes = (harp(self.plan, self.first_harp + n)[0].shape for n in range(min(self.harps, 500)))
        pixels = [rows * columns for rows, columns in sizes]
        each = BYTES_PER_PIXEL * sum(pixels) / len(pixels) + BYTES_PER_FILE
        return int(each * len(self.plan.segments) * self.records)


def plan_request(request: Request, archive: Path) -> Result:
    """What `simulate` would do."""
    return {"archive": str(archive), "records": request.records, "harps": request.harps,
            "segments": [row[0] for row in request.plan.segments], "bytes": request.bytes,
            "plan": request.plan.identity}  # fmt: skip


def _refuse_other_plan(request: Request, held: Manifest) -> None:
    """Records of these names that another plan made must not be mixed with ours."""
    ours = SCHEME + request.plan.identity
    for entry in held.values():
        if entry.record.startswith(f"{SERIES}[") and entry.url != ours:
            number = int(entry.record[len(SERIES) + 1 :].partition("]")[0])
            if request.first_harp <= number <= request.last_harp:
                raise DataError(
                    f"{entry.record} was simulated with other settings; repeat those, or choose"
                    " other numbers with --first-harp, or another archive with --out"
                )


def _missing(archive: Path, held: Manifest, record: str, segments: list[str]) -> tuple[str, ...]:
    """Segments that are not in the archive as they were written."""

    def present(entry: Entry | None) -> bool:
        if entry is None or entry.state != "fetched":
            return False
        path = archive / entry.path
        return (path.is_file() and path.stat().st_size == entry.bytes
                and sha256(path) == entry.sha256)  # fmt: skip

    return tuple(name for name in segments if not present(held.get((record, name))))


def _prepare_worker() -> None:
    """Ctrl-C is the parent's to handle; a worker does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(
    request: Request, archive: Path, held: Manifest, jobs: int
) -> Iterator[tuple[str, list[Made]]]:
    """Write what is missing; yields each record with its new segments as they come."""
    plan = request.plan
    segments = [row[0] for row in plan.segments]
    todo = (
        (number, step, record, missing)
        for number, step in request
        for record in (record_name(plan, number, step),)
        for missing in (_missing(archive, held, record, segments),)
    )
    if jobs == 1:
        for number, step, record, missing in todo:
            yield record, write_record(plan, number, step, archive, missing) if missing else []
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_prepare_worker)
    running: dict[Future[list[Made]], str] = {}
    try:
        more = True
        while more or running:
            batch = list(islice(todo, 4 * jobs - len(running)))
            more = bool(batch)
            for number, step, record, missing in batch:
                if missing:
                    job = pool.submit(write_record, plan, number, step, archive, missing)
                    running[job] = record
                else:
                    yield record, []
            if running and not (batch and len(running) < 4 * jobs):
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for job in done:
                    yield running.pop(job), job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _note(journal: Journal, plan: Plan, record: str, made: list[Made]) -> None:
    url, now = SCHEME + plan.identity, stamp()
    journal.write(
        Entry(record, one.segment, one.path, one.sha256, one.bytes, "fetched", "", url, now)
        for one in made
    )


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


def _write_truth(archive: Path) -> int:
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


def simulate(request: Request, archive: Path, jobs: int = 1) -> Result:
    """Bring the records of a request into the archive.

    Files that are there as they were written are kept.

    Raises
    ------
    DataError
        No room on the disk; records of these names that other settings made.
    """
    archive.mkdir(parents=True, exist_ok=True)
    new = kept = written = 0
    with exclusive(archive / ".simulate.lock", f"simulating into {archive}"):
        merge_dead(archive)
        held = read_manifest(archive)
        _refuse_other_plan(request, held)
        ours = sum(entry.bytes for entry in held.values() if entry.record.startswith(SERIES))
        free = shutil.disk_usage(archive).free
        if request.bytes - ours > free:
            raise DataError(f"{request.records} records take about {request.bytes / 1e9:.1f} GB,"
                            f" {archive} has {free / 1e9:.1f} GB free")  # fmt: skip
        sweep(archive / SERIES)
        with open_journal(archive) as journal:
            for count, (record, made) in enumerate(_run(request, archive, held, jobs), 1):
                _note(journal, request.plan, record, made)
                new, kept = new + bool(made), kept + (not made)
                written += sum(one.bytes for one in made)
                if count % 100 == 0:
                    log(f"simulate {count} of {request.records} records")
        rows = _write_truth(archive)
    return {"archive": str(archive), "records": request.records, "harps": request.harps,
            "new": new, "kept": kept, "bytes": written, "simulated": rows,
            "plan": request.plan.identity}  # fmt: skip
