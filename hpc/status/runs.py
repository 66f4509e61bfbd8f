"""One line per run folder: state, progress, pace, what is left, newest checkpoint."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.status.alive import fresh, lock_held, sign_of_life
from hpc.status.files import json_object, last_rows, modified, number
from hpc.status.pace import usual_pace, usual_tick
from hpc.status.text import duration, plain

AHEAD_S = 5.0  # that clocks may differ by without a word
STATES = ("running", "stopped", "failed", "done")
ENDED = STATES[1:]


@dataclass(frozen=True)
class RunLine:
    """What is known of a run; None where its files do not tell.

    Attributes
    ----------
    run, stage, state : str
        `state` is that of ``status.json``, ``lost?`` when it says running but nothing
        shows that it does, ``waiting`` when its job waits to be started again or is
        suspended, ``new`` when there is none.
    kimg, target_kimg, seconds_per_kimg, left_s : float or None
        The pace is the median of the last whole ticks.
    checkpoint : str or None
        Newest complete one.
    checkpoint_age_s, silent_s : float or None
        Since it was written; since the run's files changed.
    requeues, nonfinite : int
    job, host : str or None
    warnings : list of str
        Of its last tick.
    note : str
        Why it failed, stopped or counts as lost.
    changed : float
        Unix time of its last sign.
    """

    run: str
    stage: str
    state: str
    kimg: float | None = None
    target_kimg: float | None = None
    seconds_per_kimg: float | None = None
    left_s: float | None = None
    checkpoint: str | None = None
    checkpoint_age_s: float | None = None
    silent_s: float | None = None
    requeues: int = 0
    nonfinite: int = 0
    job: str | None = None
    host: str | None = None
    warnings: list[str] = field(default_factory=list)
    note: str = ""
    changed: float = 0.0

    @property
    def share(self) -> float | None:
        """How much of the target is done, 0 to 1."""
        if self.kimg is None or not self.target_kimg:
            return None
        return min(max(self.kimg / self.target_kimg, 0.0), 1.0)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def read_run(folder: Path, jobs: Mapping[str, str] | None, now: float) -> RunLine:
    """Read one run folder; what is damaged in it is left out.

    Parameters
    ----------
    jobs : mapping of str to str, or None
        Why each of this user's jobs that have not ended waits, or is suspended, empty for
        one that runs; None where Slurm does not tell.
    now : float
        Unix time.
    """
    status = json_object(folder / "status.json")
    rows = last_rows(folder / "stats.jsonl")
    row = rows[-1] if rows else {}
    config = json_object(folder / "config.json")
    stage = _stage(status, config)
    nimg = max((n for n in (number(status.get("nimg")), number(row.get("nimg"))) if n is not None),
               default=None)  # fmt: skip
    target = _target(status, config, stage, nimg)
    pace = usual_pace(rows)
    signs = [_unix(status.get("time")), number(row.get("time"))]
    ended = status.get("state") in ENDED and signs[0] is not None
    if not ended:  # a copy of a run that has ended is not newer than what it says of itself
        signs += [modified(folder / "stats.jsonl"), modified(folder / "log.txt")]
    changed, ahead_s = _last_sign(signs, modified(folder) or 0.0, now)
    # not a number is neither less than what is fresh nor more than one's patience
    silent = math.nan if changed is None else max(now - changed, 0.0)
    name, written = _checkpoint(folder, status)
    if ended and written is not None and changed is not None:
        written = min(written, changed)
    state, note = _state(status), plain(status.get("reason") or "", 160)
    job = plain(status["job"], 40) if status.get("job") else None
    host = plain(status["host"], 60) if status.get("host") else None
    known = jobs if _is_mine(folder) else None  # the queue was asked for this user's jobs only
    if state == "running":
        lock = folder.parent.parent / "locks" / f"{stage}-{_label(folder.name, stage)}.lock"
        here = None if host != socket.gethostname() else lock_held(lock)
        state, doubt = _alive(job, known, here, silent, usual_tick(rows))
        note = doubt or note
    if ahead_s and state in ("running", "lost?"):
        clocks = f"its files are dated {duration(ahead_s)} ahead of this clock"
        note = f"{note}; {clocks}" if note else clocks
    left = None
    if state == "running" and target is not None and nimg is not None and pace is not None:
        left = max(target - nimg, 0.0) / 1000 * pace
    if state == "stopped" and not note:
        note = _stopped(status, job, known)
    return RunLine(
        run=plain(folder.name, 80), stage=stage, state=state,
        kimg=None if nimg is None else nimg / 1000,
        target_kimg=None if target is None else target / 1000,
        seconds_per_kimg=pace, left_s=left, checkpoint=name,
        checkpoint_age_s=None if written is None else max(now - written, 0.0),
        silent_s=None if changed is None else silent, requeues=_count(status.get("requeues")),
        nonfinite=_count(status.get("nonfinite")), job=job, host=host,
        warnings=_warnings(status.get("warnings")), note=note,
        changed=now if changed is None else changed,
    )  # fmt: skip


def _last_sign(
    times: Iterable[float | None], otherwise: float, now: float
) -> tuple[float | None, float]:  # fmt: skip
    """When a run gave its last sign, and by how much its clock is ahead of this one.

    A time of the future says nothing of how long ago it was. The clock of the file server
    and that of the run's node may differ: the newest time that can be true counts, None if
    none can.
    """
    told = [time for time in times if time is not None] or [otherwise]
    past = [time for time in told if time <= now + AHEAD_S]
    ahead = max(told) - now if len(past) < len(told) else 0.0
    return max(past, default=None), ahead


def _is_mine(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False


def _alive(
    job: str | None, jobs: Mapping[str, str] | None, lock: bool | None, silent_s: float,
    tick_s: float | None,
) -> tuple[str, str]:  # fmt: skip
    """State of a run that says it is running, and what there is to say about it."""
    if job is not None and jobs is not None:
        if why := jobs.get(job):
            return "waiting", f"job {job} waits: {why}"
        if job not in jobs and fresh(silent_s, tick_s):  # of another cluster, or just ended
            return "running", (f"job {job} is not in this queue, but files changed"
                               f" {duration(silent_s)} ago")  # fmt: skip
    lost = sign_of_life(job, jobs, lock, silent_s, tick_s)
    return ("lost?", lost) if lost else ("running", "")


def _state(status: dict[str, Any]) -> str:
    state = status.get("state")
    if state is None:
        return "new"
    return state if state in STATES else plain(state, 12)


def _stopped(status: dict[str, Any], job: str | None, jobs: Mapping[str, str] | None) -> str:
    signal = plain(status.get("signal") or "", 20)
    begin = f"by {signal}" if signal else "on request"
    if status.get("requeued") is not True:
        return begin
    if job is not None and jobs is not None and job not in jobs:
        return f"{begin}; its job {job} is gone, start it again"
    if job is not None and jobs and (why := jobs[job]):
        return f"{begin}; its job {job} waits: {why}"
    return f"{begin}; Slurm starts it again"


def _stage(status: dict[str, Any], config: dict[str, Any]) -> str:
    if status.get("stage") in ("train", "ssl"):
        return str(status["stage"])
    return "ssl" if config.get("kind") == "ssl" or "ssl" in config else "train"


def _label(folder: str, stage: str) -> str:
    """Name of the experiment, by which a stage is locked."""
    name = folder.partition("-")[2]
    return name.removesuffix("-ssl") if stage == "ssl" else name


def _target(
    status: dict[str, Any], config: dict[str, Any], stage: str, nimg: float | None
) -> float | None:
    """Images to be shown: what the run says, else its configuration at the first start."""
    for key in ("target", "total"):
        if (told := number(status.get(key))) is not None:
            return told
    if status.get("state") == "done":
        return nimg
    section = config.get(stage)
    kimg = number(section.get("kimg")) if isinstance(section, dict) else None
    return None if kimg is None else kimg * 1000


def _checkpoint(folder: Path, status: dict[str, Any]) -> tuple[str | None, float | None]:
    """Name and time of the newest complete checkpoint."""
    told = status.get("checkpoint")
    if isinstance(told, dict) and (written := number(told.get("time"))) is not None:
        return plain(told.get("name", ""), 40), written
    try:
        names = sorted((path.name for path in (folder / "checkpoints").iterdir()
                        if path.name.startswith("kimg-")), reverse=True)  # fmt: skip
    except OSError:
        return None, None
    for name in names[:8]:  # the newest may be half written
        written = modified(folder / "checkpoints" / name / "COMPLETE")
        if written is not None:
            return plain(name, 40), written
    return None, None


def _count(value: object) -> int:
    found = number(value)
    return int(found) if found is not None and found > 0 else 0


def _warnings(value: object) -> list[str]:
    return [plain(one, 160) for one in value[:8]] if isinstance(value, list) else []


def _unix(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
