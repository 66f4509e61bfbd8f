"""Submit a stage to Slurm through submitit and a cluster profile.

What is submitted is a `StageJob`: a list of arguments that replaces the process
on the compute node. No code is pickled, and no value passes through a shell.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.guard import make_root
from hpc.profile import Profile, Resources
from hpc.script import (
    arguments_file,
    job_environment,
    log_folder,
    python_command,
    setup_lines,
    slurm_parameters,
)
from hpc.submit_env import submitting
from hpc.submitted import remember
from sunpipe.errors import DataError, UsageError
from sunpipe.files import write_json
from sunpipe.paths import data_root

if TYPE_CHECKING:
    from submitit import SlurmExecutor

SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+@,=~-]*")


def cache_folder(scratch: str, environ: Mapping[str, str]) -> str:
    """Folder for copies of shards on this node, for this user alone.

    Parameters
    ----------
    scratch : str
        A profile's: a path, or ``$NAME`` of a variable that holds one on the nodes.
    """
    base = scratch
    if scratch.startswith("$"):
        base = environ.get(scratch[1:], "")
        if not base.startswith("/"):
            raise UsageError(f"scratch = {scratch!r}, but on this node {scratch[1:]} is"
                             f" {base!r}; name another folder in the cluster profile")  # fmt: skip
    return f"{base.rstrip('/')}/sunpipe-{os.getuid()}"


@dataclass(frozen=True)
class StageJob:
    """Becomes ``python -m sunpipe ARGV`` with `env` added to the environment.

    `scratch` is the profile's; only the node knows what its variables hold.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    scratch: str = ""

    def command(self) -> list[str]:
        """The whole command line."""
        return [sys.executable, "-m", "sunpipe", *self.argv]

    def __call__(self) -> None:
        """Replace this process.

        submitit's handlers end here: they would checkpoint a pickle and requeue
        on their own. USR2 stays blocked, which an exec keeps, until sunpipe has
        installed its handler: an early one waits instead of killing.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        env = {**os.environ, **dict(self.env)}
        if self.scratch:
            try:
                env["SUNPIPE_CACHE"] = cache_folder(self.scratch, env)
            except UsageError as error:
                sys.exit(f"sunpipe: {error}")
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, self.command(), env)


def _executor(root: Path, profile: Profile, wanted: Resources) -> SlurmExecutor:
    try:
        import submitit
    except ImportError:
        raise DataError("submitit is not installed: pip install 'sunpipe[hpc]'") from None

    class Executor(submitit.SlurmExecutor):
        """Also makes a script where Slurm is not installed, to print it."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    if not SAFE_PATH.fullmatch(str(root)):
        raise UsageError(f"Slurm cannot use the data root {str(root)!r}: only letters, digits and"
                         " /_.+@,=~- ; choose another with SUNPIPE_ROOT")  # fmt: skip
    return Executor(log_folder(root), python=python_command(profile, wanted, root))


def _prepared(
    stage: str, commands: Sequence[Sequence[str]], profile: Profile, wanted: Resources,
    after: Sequence[str],
) -> SlurmExecutor:  # fmt: skip
    root = data_root()
    executor = _executor(root, profile, wanted)
    setup = setup_lines(stage, profile, wanted, root, commands[0])
    executor.update_parameters(**slurm_parameters(stage, profile, wanted, setup, after))
    return executor


def batch_script(
    stage: str, commands: Sequence[Sequence[str]], profile: Profile, wanted: Resources,
    after: Sequence[str] = (),
) -> str:  # fmt: skip
    """The text that `submit` hands to sbatch, to the letter."""
    executor = _prepared(stage, commands, profile, wanted, after)
    if len(commands) > 1:
        executor.parameters["map_count"] = len(commands)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(
    stage: str, commands: Sequence[Sequence[str]], profile: Profile, wanted: Resources, name: str,
    after: Sequence[str] = (), *, cluster: Path | None = None,
) -> str:  # fmt: skip
    """Submit one job, or an array with one task per command line.

    Parameters
    ----------
    name : str
        Name of the experiment, for ``slurm/submitted.jsonl``.
    after : sequence of str
        Job ids that must end well first.
    cluster : Path or None
        File of `profile`, for ``slurm/submitted.jsonl``.

    Returns
    -------
    str
        Job id (of the whole array).

    Raises
    ------
    DataError
        The data root cannot be made; sbatch is missing, or refuses the job: its own words
        are in the message.
    """
    if shutil.which("sbatch") is None:
        raise DataError("sbatch not found: this is no Slurm cluster; use --local, or"
                        " `sunpipe cluster up` for a Slurm on this machine")  # fmt: skip
    executor, root = _prepared(stage, commands, profile, wanted, after), data_root()
    make_root(root)
    folder = log_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / "requeues").mkdir(exist_ok=True)
    write_json(arguments_file(root, commands[0]), list(commands[0]))
    env = tuple(job_environment(profile, wanted, root).items())
    jobs = [StageJob(tuple(argv), env, profile.scratch) for argv in commands]
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with submitting(wanted):
            if len(jobs) == 1:
                job = str(executor.submit(jobs[0]).job_id)
            else:
                with executor.batch():
                    submitted = [executor.submit(job) for job in jobs]
                job = str(submitted[0].job_id).split("_")[0]
    except (FailedJobError, FailedSubmissionError) as error:
        words = [line for line in str(error).splitlines() if "sbatch: error" in line]
        reason = words[0] if words else str(error).strip().replace("\n", " ")
        raise DataError(f"{stage} was not accepted: {reason}") from None
    remember(folder, stage, name, job, commands, cluster)
    return job
