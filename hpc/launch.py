"""Submit a stage to Slurm through submitit and a cluster profile.

What is submitted is a `StageJob`: a list of arguments that replaces the process
on the compute node. No code is pickled, and no value passes through a shell.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.profile import Profile, Resources, minutes
from hpc.stages import STAGES
from sunpipe.errors import DataError, UsageError
from sunpipe.paths import data_root

if TYPE_CHECKING:
    from submitit import SlurmExecutor

MOST_PARTS = 1000
SAFE_PATH = re.compile(r"/[A-Za-z0-9_./+@,=~-]*")


@dataclass(frozen=True)
class StageJob:
    """Becomes ``python -m sunpipe ARGV`` with `env` added to the environment."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()

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
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, self.command(), {**os.environ, **dict(self.env)})


def log_folder(root: Path) -> Path:
    """Where batch scripts, submitted argument lists and logs are."""
    return root / "slurm"


def job_environment(profile: Profile, wanted: Resources, root: Path) -> dict[str, str]:
    """Variables a stage gets on its node."""
    env = {"SUNPIPE_ROOT": str(root)}
    env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(wanted.cpus_per_task))
    if profile.interface:
        env["NCCL_SOCKET_IFNAME"] = env["GLOO_SOCKET_IFNAME"] = profile.interface
    return env


def python_command(profile: Profile, wanted: Resources, root: Path) -> str:
    """Shell words that start Python on a node, in the container if there is one."""
    if not profile.container:
        return shlex.quote(profile.python or sys.executable)
    words = ["apptainer", "exec", *(["--nv"] if wanted.gpus_per_node else []),
             "--bind", str(root), profile.container, profile.python or "python3"]  # fmt: skip
    return shlex.join(words)


def setup_lines(profile: Profile) -> list[str]:
    """Lines of the batch script before the stage."""
    lines = []
    if profile.modules:
        lines.append(f"module load {shlex.join(profile.modules)} || exit 1")
    if profile.setup:
        lines.append(f"source {shlex.quote(profile.setup)} || exit 1")
    return lines


def slurm_parameters(
    stage: str, profile: Profile, wanted: Resources, after: Sequence[str] = ()
) -> dict[str, Any]:
    """Parameters of submitit's executor for one stage.

    Parameters
    ----------
    after : sequence of str
        Job ids that must end well first; if one fails the job is cancelled.
    """
    srun = [f"--cpus-per-task={wanted.cpus_per_task}"]  # srun no longer takes it from sbatch
    if STAGES[stage].mpi:
        # a rank that dies ends those that wait for it
        srun += ["--kill-on-bad-exit=1", f"--mpi={profile.mpi}"]
    elif STAGES[stage].ranks:
        # the ranks that are left end by themselves, and say who was lost
        srun += ["--kill-on-bad-exit=0", "--wait=300"]
    limit = wanted.array_parallel
    at_once = STAGES[stage].parallel if limit is None else limit
    more: dict[str, Any] = {"requeue": True}
    if after:
        more["kill-on-invalid-dep"] = "yes"
    options = {
        "partition": wanted.partition, "account": wanted.account, "qos": wanted.qos,
        "constraint": wanted.constraint, "mem": wanted.mem,
        "gpus_per_node": wanted.gpus_per_node, "dependency": "afterok:" + ":".join(after)
        if after else "", "setup": setup_lines(profile),
    }  # fmt: skip
    return {
        "job_name": f"sunpipe-{stage}", "time": minutes(wanted.time), "nodes": wanted.nodes,
        "ntasks_per_node": wanted.tasks_per_node, "cpus_per_task": wanted.cpus_per_task,
        "signal_delay_s": profile.signal_s, "stderr_to_stdout": True, "wckey": None,
        "srun_args": srun, "additional_parameters": more,
        "array_parallelism": at_once or MOST_PARTS,
        **{key: value for key, value in options.items() if value},
    }  # fmt: skip


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


def batch_script(
    stage: str, jobs: int, profile: Profile, wanted: Resources, after: Sequence[str] = ()
) -> str:
    """The text that `submit` hands to sbatch, to the letter."""
    executor = _executor(data_root(), profile, wanted)
    executor.update_parameters(**slurm_parameters(stage, profile, wanted, after))
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def submit(
    stage: str,
    commands: Sequence[Sequence[str]],
    profile: Profile,
    wanted: Resources,
    after: Sequence[str] = (),
) -> str:
    """Submit one job, or an array with one task per command line.

    Returns
    -------
    str
        Job id (of the whole array).

    Raises
    ------
    DataError
        sbatch is missing or refuses the job; its own words are in the message.
    """
    if shutil.which("sbatch") is None:
        raise DataError("sbatch not found: this is no Slurm cluster; use --local, or"
                        " `sunpipe cluster up` for a Slurm on this machine")  # fmt: skip
    root = data_root()
    executor = _executor(root, profile, wanted)
    log_folder(root).mkdir(mode=0o700, parents=True, exist_ok=True)
    executor.update_parameters(**slurm_parameters(stage, profile, wanted, after))
    env: Mapping[str, str] = job_environment(profile, wanted, root)
    jobs = [StageJob(tuple(argv), tuple(env.items())) for argv in commands]
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        if len(jobs) == 1:
            return str(executor.submit(jobs[0]).job_id)
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (FailedJobError, FailedSubmissionError) as error:
        words = [line for line in str(error).splitlines() if "sbatch: error" in line]
        reason = words[0] if words else str(error).strip().replace("\n", " ")
        raise DataError(f"{stage} was not accepted: {reason}") from None
    return str(submitted[0].job_id).split("_")[0]
