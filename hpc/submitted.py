"""What was submitted to Slurm: one line per job in ``slurm/submitted.jsonl`` of the data root.

The queue forgets a job minutes after its end, and accounting may be missing;
this says for good which part of which stage wrote which log.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sunpipe.provenance import now

FILE = "submitted.jsonl"


def log_of(folder: Path, job: str, task: int | None) -> Path:
    """Log of a job, or of a task of an array (from 0), as submitit names it; first rank."""
    return folder / (f"{job}_0_log.out" if task is None else f"{job}_{task}_0_log.out")


def part_of(argv: Sequence[str]) -> str | None:
    """``I/N`` of a command line."""
    words = list(argv)
    return words[words.index("--part") + 1] if "--part" in words[:-1] else None


def remember(
    folder: Path, stage: str, name: str, job: str, commands: Sequence[Sequence[str]],
    cluster: Path | None = None,
) -> None:  # fmt: skip
    """Append what was submitted.

    Parameters
    ----------
    folder : Path
        Where Slurm's logs are.
    name : str
        Name of the experiment.
    commands : sequence
        One command line per task; they differ in ``--part`` alone, so the first is kept.
    cluster : Path or None
        File of the cluster profile.
    """
    alone = len(commands) == 1
    tasks = [{"part": part_of(argv), "log": log_of(folder, job, None if alone else number).name}
             for number, argv in enumerate(commands)]  # fmt: skip
    row = {"stage": stage, "name": name, "job": job, "time": now(), "tasks": tasks,
           "argv": list(commands[0])}  # fmt: skip
    if cluster is not None:
        row["cluster"] = str(cluster.expanduser().absolute())
    with open(folder / FILE, "ab+") as handle:
        if handle.tell() and not _ends_a_line(handle):
            handle.write(b"\n")  # a writer that was killed must not take this row with it
        handle.write(json.dumps(row).encode() + b"\n")


def _ends_a_line(handle: BinaryIO) -> bool:
    handle.seek(-1, os.SEEK_END)
    return handle.read(1) == b"\n"


def submissions(folder: Path) -> list[dict[str, Any]]:
    """All that was submitted, oldest first; a torn line is left out."""
    path = folder / FILE
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # its writer was killed
        if isinstance(row, dict) and {"stage", "name", "job", "tasks"} <= row.keys():
            rows.append(row)
    return rows


def last_logs(folder: Path, stage: str, name: str) -> dict[str, Path]:
    """Newest log of each part (``I/N``) of a stage that was ever submitted."""
    logs = {}
    for row in submissions(folder):
        if (row["stage"], row["name"]) == (stage, name):
            for task in row["tasks"]:
                if task["part"]:
                    logs[str(task["part"])] = folder / Path(task["log"]).name
    return logs
