"""Jobs and array tasks that failed: where their log is, and the line that runs just them again.

Slurm's queue shows an ended job for some minutes; ``slurm/submitted.jsonl`` says
what was submitted; ``sacct``, where the site has accounting, remembers for days.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.script import log_folder
from hpc.slurm_query import Job, ask_slurm
from hpc.stages import STAGES
from hpc.status.files import last_words, modified
from hpc.status.text import plain
from hpc.submitted import part_of, submissions
from sunpipe.errors import DataError
from sunpipe.files import read_json

FAILED = ("failed", "timeout", "node_fail", "out_of_memory", "boot_fail", "deadline",
          "launch_failed")  # fmt: skip
DAYS = 7  # of failures that are still told
SACCT_S = 5.0
MOST_ASKED = 200  # jobs of one question to sacct
_TOLD: dict[str, str] = {}  # how jobs ended is final: a watch asks once
_ASKED: set[str] = set()


@dataclass(frozen=True)
class Ended:
    """What failed of one submission.

    Attributes
    ----------
    id, stage, state : str
        `id` of the job or whole array, `state` of the first that failed.
    tasks : list of str
        ``I/N`` of each part that failed, or the task numbers of a plain array.
    log : str
        Log of the first one.
    words : str
        Last line of that log.
    again : str
        Command line that submits just these again.
    """

    id: str
    stage: str
    state: str
    tasks: list[str] = field(default_factory=list)
    log: str = ""
    words: str = ""
    again: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def failures(root: Path, jobs: Sequence[Job], now: float) -> list[Ended]:
    """What failed, of the jobs that Slurm still shows and of what was launched from `root`.

    A part that was submitted again, or whose stage was, is left out.
    """
    folder = log_folder(root)
    rows = [row for row in submissions(folder) if _well_formed(row)]
    newest = {(row["stage"], row["name"], part): number for number, row in enumerate(rows)
              for part in _parts(row)}  # fmt: skip
    states = _states(jobs)
    unknown = [
        row["job"]
        for row in rows
        if row["job"] not in {job.array for job in jobs} and _age_days(row, now) < DAYS
    ]
    states.update(sacct_states(unknown) if unknown else {})
    found = []
    for number, row in enumerate(rows):
        if _age_days(row, now) > DAYS:
            continue
        bad = []
        for place, task in enumerate(row["tasks"]):
            part = task.get("part")
            again = max(newest[row["stage"], row["name"], part],
                        newest.get((row["stage"], row["name"], None), -1))  # fmt: skip
            key = row["job"] if len(row["tasks"]) == 1 else f"{row['job']}_{place}"
            if states.get(key) in FAILED and again == number:
                bad.append((task, states[key]))
        if bad:
            found.append(_launched(folder, row, bad))
    launched = {row["job"] for row in rows}
    return found + _plain_jobs([job for job in jobs if job.array not in launched])


def _well_formed(row: Mapping[str, Any]) -> bool:
    tasks = row.get("tasks")
    return (
        all(isinstance(row.get(key), str) for key in ("stage", "name", "job"))
        and re.fullmatch(r"\d{1,12}", row["job"]) is not None
        and row["stage"] in STAGES
        and isinstance(tasks, list) and bool(tasks)
        and all(isinstance(task, dict) and isinstance(task.get("log"), str)
                and isinstance(task.get("part"), str | None) for task in tasks)
    )  # fmt: skip


def _parts(row: Mapping[str, Any]) -> list[str | None]:
    return [task.get("part") for task in row["tasks"]]


def _age_days(row: Mapping[str, Any], now: float) -> float:
    with suppress(ValueError, OverflowError):
        return (now - datetime.fromisoformat(str(row.get("time"))).timestamp()) / 86400
    return 0.0


def _states(jobs: Iterable[Job]) -> dict[str, str]:
    return {key: job.state for job in jobs for key in (job.id, job.job)}


def sacct_states(jobs: Sequence[str]) -> dict[str, str]:
    """States of jobs and array tasks that the queue has forgotten; nothing without accounting."""
    chosen = [job for job in jobs if job not in _ASKED][-MOST_ASKED:]
    if not chosen:
        return _TOLD
    _ASKED.update(chosen)
    try:
        text = ask_slurm("sacct", "--noheader", "--parsable2", "--allocations", "--jobs",
                         ",".join(chosen),
                         "--format=JobID,State", f"--starttime=now-{DAYS}days",
                         timeout=SACCT_S)  # fmt: skip
    except DataError:
        return _TOLD
    rows = (line.split("|") for line in text.splitlines())
    _TOLD.update(
        {row[0]: row[1].split()[0].lower() for row in rows if len(row) == 2 and row[1].split()}
    )
    return _TOLD


def _launched(
    folder: Path, row: Mapping[str, Any], bad: Sequence[tuple[Mapping[str, Any], str]]
) -> Ended:
    log = folder / Path(bad[0][0]["log"]).name
    parts = [plain(task["part"], 20) for task, _ in bad if task.get("part")]
    cluster = [] if os.environ.get("SUNPIPE_CLUSTER") else ["--cluster", "PROFILE"]
    words = ["sunpipe", "launch", row["stage"], *cluster, *_options(folder, row)]
    line = shlex.join(words)
    if parts:
        before, dashes, after = line.partition(" -- ")
        part = shlex.quote(parts[0]) if len(parts) == 1 else "$part"
        line = f"{before} --part {part}{dashes}{after}"
    if len(parts) > 1:
        line = f"for part in {shlex.join(parts)}; do {line}; done"
    return Ended(row["job"], row["stage"], bad[0][1], parts, str(log), plain(last_words(log), 160),
                 plain(line, 600))  # fmt: skip


def _options(folder: Path, row: Mapping[str, Any]) -> list[str]:
    """Configuration and ``--set`` of a submission, from the arguments that were kept of it."""
    told = row.get("argv")
    argv = told if isinstance(told, list) else _kept_arguments(folder, row)
    command = list(STAGES[row["stage"]].command)
    if argv is None or argv[: len(command)] != command:
        return ["-c", "CONFIG"]
    rest, options = argv[len(command) :], []
    known = {"--config": "-c", "--set": "--set"}
    at = 0
    while at < len(rest):
        if rest[at] in known and at + 1 < len(rest):
            options += [known[rest[at]], rest[at + 1]]
            at += 2
        elif rest[at] == "--part":
            at += 2
        else:
            return [*options, "--", *rest[at:]]
    return options


def _kept_arguments(folder: Path, row: Mapping[str, Any]) -> list[str] | None:
    """The arguments file of this submission: same stage and first part, written just before."""
    part, command = row["tasks"][0].get("part"), list(STAGES[row["stage"]].command)
    with suppress(ValueError, OverflowError):
        told = datetime.fromisoformat(str(row.get("time"))).timestamp()
        best: tuple[float, list[str]] | None = None
        for path in folder.glob("arguments-*.json"):
            with suppress(DataError):
                argv = read_json(path)
                apart = abs((modified(path) or 0.0) - told)
                if (isinstance(argv, list) and all(isinstance(word, str) for word in argv)
                        and argv[: len(command)] == command and part_of(argv) == part
                        and apart < 60 and (best is None or apart < best[0])):  # fmt: skip
                    best = (apart, argv)
        return best[1] if best else None
    return None


def _plain_jobs(jobs: Sequence[Job]) -> list[Ended]:
    """Failures of jobs that were submitted with sbatch, while Slurm still shows them."""
    found = []
    arrays: dict[str, list[Job]] = {}
    for job in jobs:
        if job.stage not in (None, "doctor") and job.state in FAILED:
            arrays.setdefault(job.array, []).append(job)
    for number, bad in arrays.items():
        shown = _show_job(bad[0].job)
        tasks = sorted(int(job.id.partition("_")[2]) for job in bad if "_" in job.id
                        and job.id.partition("_")[2].isdigit())  # fmt: skip
        log = Path(shown["StdOut"]) if "StdOut" in shown else None
        again = ""
        command = shown.get("Command", "(null)")
        # sbatch --wrap has none; a launch from another data root has a file of submitit's
        if command != "(null)" and ".submission_file_" not in command:
            every = [job for job in jobs if job.array == number and "_" in job.id]
            again = _sbatch_again(command, tasks, len(every))
        found.append(Ended(number, bad[0].stage or "", bad[0].state, [str(task) for task in tasks],
                           plain(log or "", 300), plain(last_words(log), 160) if log else "",
                           plain(again, 600)))  # fmt: skip
    return found


def _sbatch_again(command: str, tasks: Sequence[int], count: int) -> str:
    """Submit tasks of a plain array again; the templates need to know how many there are."""
    if not tasks:
        return f"sbatch {command}"
    listed = ",".join(map(str, tasks))
    return f"SUNPIPE_PARTS={max(count, *tasks)} sbatch --array={listed} {command}"


def _show_job(job: str) -> dict[str, str]:
    try:
        text = ask_slurm("scontrol", "show", "job", job, timeout=SACCT_S)
    except DataError:
        return {}
    lines = (line.strip().partition("=") for line in text.splitlines())
    return {key: value for key, _, value in lines if key in ("Command", "StdOut")}
