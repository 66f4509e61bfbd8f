"""Jobs that were not launched from this data root: whose they are, and how to run them again."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from hpc.script import log_folder
from hpc.slurm_query import ask_slurm
from hpc.status.shell import shell_line, shell_word
from sunpipe.errors import DataError

PATIENCE_S = 5.0


def root_of(command: str) -> Path | None:
    """Data root of a job that was launched, from the script that Slurm knows; else None.

    submitit leaves the script in the folder of logs, as ``.submission_file_<uuid>.sh``.
    """
    script = Path(command)
    root = script.parent.parent
    launched = script.name.startswith(".submission_file_") and script.parent == log_folder(root)
    return root if launched else None


def roots_of_jobs(user: str) -> dict[str, Path]:
    """Data roots of the jobs that were launched, by `hpc.slurm_query.Job.job`."""
    word = f"<{secrets.token_hex(8)}>"  # a command may hold any character
    try:
        text = ask_slurm("squeue", "--noheader", f"--user={user}", f"--format={word}%A{word}%o",
                         timeout=PATIENCE_S)  # fmt: skip
    except DataError:
        return {}  # the line is a convenience; the jobs themselves were told
    fields = [field.strip() for field in text.split(word)[1:]]
    found = zip(fields[::2], map(root_of, fields[1::2]), strict=False)
    return {job: root for job, root in found if root is not None}


def show_job(job: str) -> dict[str, str]:
    """Command, log and folder of a job or of a task ``ARRAY_TASK``; empty if Slurm forgot it."""
    try:
        text = ask_slurm("scontrol", "show", "job", job, timeout=PATIENCE_S)
    except DataError:
        return {}
    lines = (line.strip().partition("=") for line in text.splitlines())
    return {key: value for key, _, value in lines if key in ("Command", "StdOut", "WorkDir")}


def sbatch_again(command: str, folder: str, tasks: Sequence[int], count: int) -> str:
    """Submit a job again, or tasks of a plain array: how many there are, the templates must know.

    They look for the checkout, and for their configuration, where sbatch was started.

    Parameters
    ----------
    command : str
        Script and its arguments, between which Slurm keeps no quotes.
    folder : str
        Where sbatch was started.
    tasks : sequence of int
        Those of an array; empty for a job that is none.
    count : int
        Tasks of the whole array.
    """
    line = shell_line(["sbatch", *command.split()])
    if tasks:
        listed = ",".join(map(str, tasks))
        line = f"SUNPIPE_PARTS={max(count, *tasks)} " + shell_line(
            ["sbatch", f"--array={listed}", *command.split()])  # fmt: skip
    return f"(cd {shell_word(folder)} && {line})" if folder else line
