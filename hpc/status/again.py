"""Jobs and array tasks that failed: where their log is, and the line that runs just them again.

Slurm's queue shows an ended job for some minutes; ``slurm/submitted.jsonl`` says
what was submitted; ``sacct``, where the site has accounting, remembers for days.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.script import log_folder
from hpc.slurm_query import Job, ask_slurm
from hpc.stages import STAGES
from hpc.status.accounting import DAYS, sacct_states
from hpc.status.files import last_words
from hpc.status.shell import PART, shell_line, shell_word, spans
from hpc.status.text import plain, visible
from hpc.submitted import submissions
from sunpipe.errors import DataError

FAILED = ("failed", "timeout", "node_fail", "out_of_memory", "boot_fail", "deadline",
          "launch_failed")  # fmt: skip
PATIENCE_S = 5.0


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
    shown = Counter[str]()  # of a long array the queue forgets the first tasks before its end
    for job in jobs:
        shown[job.array] += job.tasks
    unknown = [row["job"] for row in rows
               if shown[row["job"]] < len(row["tasks"]) and _age_days(row, now) < DAYS]  # fmt: skip
    # the queue is newer: a job that was requeued runs again, whatever accounting kept of it
    states = {**(sacct_states(unknown) if unknown else {}), **_states(jobs)}
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
                and _is_part(task.get("part")) for task in tasks)
    )  # fmt: skip


def _is_part(part: object) -> bool:
    return part is None or (isinstance(part, str) and PART.fullmatch(part) is not None)


def _parts(row: Mapping[str, Any]) -> list[str | None]:
    return [task.get("part") for task in row["tasks"]]


def _age_days(row: Mapping[str, Any], now: float) -> float:
    with suppress(ValueError, OverflowError):
        return (now - datetime.fromisoformat(str(row.get("time"))).timestamp()) / 86400
    return 0.0


def _states(jobs: Iterable[Job]) -> dict[str, str]:
    return {key: job.state for job in jobs for key in (job.id, job.job)}


def _launched(
    folder: Path, row: Mapping[str, Any], bad: Sequence[tuple[Mapping[str, Any], str]]
) -> Ended:
    log = folder / Path(bad[0][0]["log"]).name
    parts = [task["part"] for task, _ in bad if task.get("part")]
    cluster = [] if os.environ.get("SUNPIPE_CLUSTER") else ["--cluster", "PROFILE"]
    options, after = _options(row)
    line = shell_line(["sunpipe", "launch", row["stage"], *cluster, *options])
    if parts:
        line += f" --part {shell_word(parts[0]) if len(parts) == 1 else '$part'}"
    if after:
        line += f" -- {shell_line(after)}"
    if len(parts) > 1:
        line = f"for part in {' '.join(spans(parts, shell=True))}; do {line}; done"
    return Ended(row["job"], row["stage"], bad[0][1], parts, visible(log),
                 plain(last_words(log), 160), line)  # fmt: skip


def _options(row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Configuration and ``--set`` of a submission, and what the stage alone understands."""
    argv, command = row.get("argv"), list(STAGES[row["stage"]].command)
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        return ["-c", "CONFIG"], []  # submitted before its arguments were kept
    if argv[: len(command)] != command:
        return ["-c", "CONFIG"], []
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
            return options, rest[at:]
    return options, []


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
                           visible(log or ""), plain(last_words(log), 160) if log else "",
                           visible(again)))  # fmt: skip
    return found


def _sbatch_again(command: str, tasks: Sequence[int], count: int) -> str:
    """Submit tasks of a plain array again; the templates need to know how many there are.

    Slurm tells neither the options that sbatch had nor the data root: a comment says so.
    """
    rest = "  # with SUNPIPE_ROOT and the options of sbatch as the first time"
    if not tasks:
        return f"sbatch {command}{rest}"
    listed = ",".join(map(str, tasks))
    return f"SUNPIPE_PARTS={max(count, *tasks)} sbatch --array={listed} {command}{rest}"


def _show_job(job: str) -> dict[str, str]:
    try:
        text = ask_slurm("scontrol", "show", "job", job, timeout=PATIENCE_S)
    except DataError:
        return {}
    lines = (line.strip().partition("=") for line in text.splitlines())
    return {key: value for key, _, value in lines if key in ("Command", "StdOut")}
