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
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from preprocess.acquire.journal import Journal, merge_dead, open_journal, stamp
from preprocess.manifest import Entry, Manifest, read_manifest
from preprocess.simulation.record import (
    SERIES,
    VISIBLE_DEG,
    Made,
    Plan,
    harp,
    record_name,
    write_record,
)
from preprocess.simulation.truth import SCHEME, write_truth
from sunpipe.errors import DataError, UsageError
from sunpipe.files import sha256
from sunpipe.lock import exclusive, sweep
from sunpipe.stage import Result
from sunpipe.ticks import Ticks

FIRST_HARP = 900_001  # real HARPs have up to five digits
LAST_HARP = 9_999_999
STEPS = 12  # records of a HARP when --harps is not given
BYTES_PER_PIXEL, BYTES_PER_FILE = 1.3, 12_000  # measured: 7.4 per pixel of six segments


@dataclass(frozen=True)
class Request:
    """How much of a plan is wanted.

    Attributes
    ----------
    plan : Plan
    records : int
        The first so many.
    first_harp : int
        HARPNUM of the first.
    shared_by : int, optional
        So many HARPs get them in turn; when missing, one HARP after the other is completed.
    """

    plan: Plan
    records: int
    first_harp: int = FIRST_HARP
    shared_by: int | None = None

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
        return self.shared_by or -(-self.records // self.plan.steps)

    @property
    def last_harp(self) -> int:
        """HARPNUM of the last."""
        return self.first_harp + self.harps - 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number in range(self.records):
            if self.shared_by:
                step, place = divmod(number, self.shared_by)
            else:
                place, step = divmod(number, self.plan.steps)
            yield self.first_harp + place, step

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


@contextmanager
def _held_back() -> Iterator[None]:
    """Workers start with ctrl-C blocked: until they ignore it, it would end them noisily."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
                    with _held_back():
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
        with open_journal(archive) as journal, Ticks(request.records, "records") as ticks:
            for record, made in _run(request, archive, held, jobs):
                _note(journal, request.plan, record, made)
                new, kept = new + bool(made), kept + (not made)
                written += sum(one.bytes for one in made)
                ticks.tick()
        rows = write_truth(archive)
    return {"archive": str(archive), "records": request.records, "harps": request.harps,
            "new": new, "kept": kept, "bytes": written, "simulated": rows,
            "plan": request.plan.identity}  # fmt: skip
