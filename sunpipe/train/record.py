"""What ``status.json`` tells of a run besides its state: where it runs, how often it was restarted.

Times in it are for people and monitors: no decision of a training rests on them, so
that a clock that is set back does no harm.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sunpipe.dist import Ranks, node_count
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.provenance import now
from sunpipe.run import Run, read_stats
from sunpipe.stop import slurm_job

RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")


def restart_number(env: Mapping[str, str]) -> int:
    """How often Slurm, or torchrun, has started this job again."""
    words = (env.get(key, "") for key in RESTARTS)
    return max((int(word) for word in words if word.isdigit()), default=0)


def requeues(before: Mapping[str, Any], restart: int) -> int:
    """Restarts of a run with this start of it.

    One more than before when a launcher starts the job again, or when the process
    before failed, was killed, or was promised a restart. A start by hand after a
    stop that was asked for is none, nor is one of a run that was done.

    Parameters
    ----------
    before : mapping
        ``status.json`` as this start finds it, empty if there is none.
    restart : int
        See `restart_number`.
    """
    count = before.get("requeues")
    known = count if isinstance(count, int) else 0
    state = before.get("state")
    if state in (None, "done"):
        return known
    return known + (restart > 0 or state != "stopped" or before.get("requeued") is True)


def checkpoint_fact(path: Path) -> dict[str, Any] | None:
    """Name, time (Unix seconds) and bytes of a checkpoint; None when it is gone meanwhile."""
    try:
        files = [file.stat() for file in path.rglob("*") if file.is_file()]
        written = (path / "COMPLETE").stat().st_mtime
    except OSError:  # another one took its place; this only informs
        return None
    return {"name": path.name, "time": written, "bytes": sum(file.st_size for file in files)}


def _named_latest(run: Run) -> tuple[str, int]:
    """What ``checkpoints/latest`` says, and when it was written (ns)."""
    pointer = run.folder / "checkpoints/latest"
    try:
        return pointer.read_text(encoding="utf-8").strip(), pointer.stat().st_mtime_ns
    except OSError:
        return "", 0


def resumes_from(run: Run, start: Path | None) -> None:
    """The newest checkpoint is the one that this start continues from, until one is written.

    ``latest`` may name one that was passed over.
    """
    run.latest_before = _named_latest(run)
    run.facts["checkpoint"] = None if start is None else checkpoint_fact(start)


def read_status(folder: Path) -> dict[str, Any]:
    """``status.json`` of a run; empty where it is missing or is no JSON object."""
    path = folder / "status.json"
    try:
        found = read_json(path) if path.exists() else {}
    except DataError:  # it only informs: a torn one must not keep a run from going on
        return {}
    return found if isinstance(found, dict) else {}


def begin(run: Run, stage: str, ranks: Ranks) -> None:
    """Facts of this start, which every later `Run.status` repeats."""
    before, restart = read_status(run.folder), restart_number(os.environ)
    skipped = before.get("nonfinite")
    if not isinstance(skipped, int):  # of an older version
        skipped = round(sum(row.get("skipped") or 0 for row in read_stats(run.folder)))
    joules = before.get("energy_j")
    run.facts.update(
        stage=stage, job=slurm_job(), restart=restart, host=socket.gethostname(),
        world=ranks.world, nodes=node_count(ranks, os.environ), started=now(),
        requeues=requeues(before, restart), nonfinite=skipped,
        energy_j=joules if isinstance(joules, int | float) else None,
    )  # fmt: skip


def add_tick(run: Run, row: Mapping[str, Any]) -> None:
    """Move the totals on by one row of ``stats.jsonl``."""
    run.facts["nonfinite"] += round(row.get("skipped") or 0)
    if (joules := row.get("energy_j")) is not None:
        run.facts["energy_j"] = (run.facts["energy_j"] or 0.0) + joules


def tell(run: Run, state: str, **more: Any) -> None:
    """`Run.status` with the newest checkpoint that is safe by now."""
    latest = _named_latest(run)
    if latest != run.latest_before and latest[0]:
        found = checkpoint_fact(run.folder / "checkpoints" / latest[0])
        run.facts["checkpoint"] = found or run.facts.get("checkpoint")
    run.status(state, **more)
