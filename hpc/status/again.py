"""Jobs and array tasks that failed: where their log is, and the line that runs just them again.

Slurm's queue shows an ended job for some minutes; ``slurm/submitted.jsonl`` says
what was submitted; ``sacct``, where the site has accounting, remembers for days.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hpc.script import log_folder
from hpc.slurm_query import Job
from hpc.stages import STAGES
from hpc.status.accounting import DAYS, sacct_states
from hpc.status.elsewhere import PATIENCE_S, root_of, sbatch_again, show_job
from hpc.status.files import last_words
from hpc.status.shell import PART, shell_line, shell_word, spans
from hpc.status.text import plain, visible
from hpc.submitted import submissions

FAILED = ("failed", "timeout", "node_fail", "out_of_memory", "boot_fail", "deadline",
          "launch_failed", "preempted")  # fmt: skip
UNKEPT = "SUNPIPE_ROOT and the options of sbatch are to be as the first time"


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
    note : str
        What that line lacks.
    root : str
        Data root, where it is another one than that which is shown.
    """

    id: str
    stage: str
    state: str
    tasks: list[str] = field(default_factory=list)
    log: str = ""
    words: str = ""
    again: str = ""
    note: str = ""
    root: str = ""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def failures(root: Path, jobs: Sequence[Job], now: float) -> list[Ended]:
    """What failed, of the jobs that Slurm still shows and of what was launched from `root`.

    A part that was submitted again, or whose stage was, whole or in all of its parts, is left out.
    """
    rows = rows_of(root)
    shown = Counter[str]()  # of a long array the queue forgets the first tasks before its end
    for job in jobs:
        shown[job.array] += job.tasks
    unknown = [row["job"] for row in rows
               if shown[row["job"]] < len(row["tasks"]) and _age_days(row, now) < DAYS]  # fmt: skip
    # the queue is newer: a job that was requeued runs again, whatever accounting kept of it
    states = {**(sacct_states(unknown) if unknown else {}), **_states(jobs)}
    launched = {row["job"] for row in rows}
    others = [job for job in jobs if job.array not in launched]
    return _failed(root, rows, states, now) + _unlaunched(others, now)


def rows_of(root: Path) -> list[dict[str, Any]]:
    """What was submitted from a data root, oldest first; what is damaged is left out."""
    return [row for row in submissions(log_folder(root)) if _well_formed(row)]


def _failed(
    root: Path, rows: Sequence[Mapping[str, Any]], states: Mapping[str, str], now: float,
    elsewhere: bool = False,
) -> list[Ended]:  # fmt: skip
    """Failures among what was launched from one data root."""
    newest: dict[tuple[str, str], dict[int, dict[int, int]]] = {}  # by N and I of ``I/N``
    for number, row in enumerate(rows):
        for part in _parts(row):
            place, count = _place(part)
            newest.setdefault((row["stage"], row["name"]), {}).setdefault(count, {})[place] = number
    found = []
    for number, row in enumerate(rows):
        if _age_days(row, now) > DAYS:
            continue
        counts = newest[row["stage"], row["name"]]
        # all of it in another number of parts, or whole: these parts do not come again
        whole = {count for count, at in counts.items()
                 if len(at) == count and min(at.values()) > number}  # fmt: skip
        bad = []
        for index, task in enumerate(row["tasks"]):
            place, count = _place(task.get("part"))
            key = row["job"] if len(row["tasks"]) == 1 else f"{row['job']}_{index}"
            if states.get(key) in FAILED and counts[count][place] == number and not whole:
                bad.append((task, states[key]))
        if bad:
            found.append(_launched(root, row, bad, elsewhere))
    return found


def _place(part: str | None) -> tuple[int, int]:
    """I and N of ``I/N``; a stage that is not divided is its only part."""
    place, _, count = (part or "1/1").partition("/")
    return int(place), int(count)


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
    if part is None:
        return True
    found = PART.fullmatch(part) if isinstance(part, str) else None
    return found is not None and 1 <= int(found[1]) <= int(found[2])


def _parts(row: Mapping[str, Any]) -> list[str | None]:
    return [task.get("part") for task in row["tasks"]]


def _age_days(row: Mapping[str, Any], now: float) -> float:
    with suppress(ValueError, OverflowError):
        return (now - datetime.fromisoformat(str(row.get("time"))).timestamp()) / 86400
    return 0.0


def _states(jobs: Iterable[Job]) -> dict[str, str]:
    return {key: job.state for job in jobs for key in (job.id, job.job)}


def _launched(
    root: Path, row: Mapping[str, Any], bad: Sequence[tuple[Mapping[str, Any], str]],
    elsewhere: bool,
) -> Ended:  # fmt: skip
    log = log_folder(root) / Path(bad[0][0]["log"]).name
    parts = [task["part"] for task, _ in bad if task.get("part")]
    cluster = _cluster(row)
    options, after = _options(row)
    line = shell_line(["sunpipe", "launch", row["stage"], *cluster, *options])
    if elsewhere:
        line = f"SUNPIPE_ROOT={shell_word(str(root))} {line}"
    if parts:
        line += f" --part {shell_word(parts[0]) if len(parts) == 1 else '$part'}"
    if after:
        line += f" -- {shell_line(after)}"
    if len(parts) > 1:
        line = f"for part in {' '.join(spans(parts, shell=True))}; do {line}; done"
    return Ended(row["job"], row["stage"], bad[0][1], parts, visible(log),
                 plain(last_words(log), 160), line, root=visible(root) if elsewhere else ""
                 )  # fmt: skip


def _cluster(row: Mapping[str, Any]) -> list[str]:
    """The profile that it was submitted with; older rows do not tell."""
    if isinstance(row.get("cluster"), str):
        return ["--cluster", row["cluster"]]
    return [] if os.environ.get("SUNPIPE_CLUSTER") else ["--cluster", "PROFILE"]


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


def _unlaunched(jobs: Sequence[Job], now: float) -> list[Ended]:
    """Failures of jobs that were not launched from this data root, while Slurm shows them.

    They were launched from another one, or submitted with sbatch.
    """
    found: list[Ended] = []
    arrays: dict[str, list[Job]] = {}
    for job in jobs:
        if job.stage not in (None, "doctor") and job.state in FAILED:
            arrays.setdefault(job.array, []).append(job)
    rows: dict[Path, list[dict[str, Any]]] = {}
    end = time.monotonic() + 2 * PATIENCE_S  # of all questions: Slurm may have stopped answering
    for number, bad in arrays.items():
        shown = show_job(bad[0].id) if time.monotonic() < end else {}
        root = root_of(shown.get("Command", ""))
        every = [job for job in jobs if job.array == number and "_" in job.id]
        if root is not None:
            known = rows[root] = rows[root] if root in rows else rows_of(root)
            if any(row["job"] == number for row in known):
                found += [one for one in _failed(root, known, _states([*every, *bad]), now, True)
                          if one.id == number]  # fmt: skip
                continue
        found.append(_plain(bad, shown, root, len(every)))
    return found


def _plain(bad: Sequence[Job], shown: Mapping[str, str], root: Path | None, count: int) -> Ended:
    tasks = sorted(int(task) for job in bad if (task := job.id.partition("_")[2]).isdigit())
    log = Path(shown["StdOut"]) if "StdOut" in shown else None
    again, command = "", shown.get("Command", "(null)")
    if command != "(null)" and root is None:  # sbatch --wrap has none
        again = sbatch_again(command, shown.get("WorkDir", ""), tasks, count)
    return Ended(bad[0].array, bad[0].stage or "", bad[0].state, [str(task) for task in tasks],
                 visible(log or ""), plain(last_words(log), 160) if log else "", again,
                 UNKEPT if again else "", visible(root or ""))  # fmt: skip
