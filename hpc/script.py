"""What a batch script of a stage says: options, set-up lines, the command, the second start.

Only values that a profile's whitelists have passed, and words quoted by `shlex`,
become shell text; the stage's own arguments never do.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc.profile import Profile, Resources, minutes
from hpc.stages import STAGES
from sunpipe.files import digest

MOST_PARTS = 1000
# The shell of a batch job has the function only if the one that submitted exported it.
MODULES = 'command -v module >/dev/null || . "${MODULESHOME:?no environment modules}/init/bash"'


def log_folder(root: Path) -> Path:
    """Where batch scripts, submitted argument lists and logs are."""
    return root / "slurm"


def arguments_file(root: Path, argv: Sequence[str]) -> Path:
    """Where the arguments of a stage lie that may be started again after a loss."""
    return log_folder(root) / f"arguments-{digest(list(argv))[:16]}.json"


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
    words = ["apptainer", "exec", *(["--nv"] if wanted.gpus_per_node else []), "--bind", str(root)]
    text = shlex.join(words)
    if profile.scratch.startswith("$"):  # a variable's name and nothing else, says the profile
        text += f' --bind "{profile.scratch}"'
    elif profile.scratch:
        text += f" --bind {shlex.quote(profile.scratch)}"
    return f"{text} {shlex.join([profile.container, profile.python or 'python3'])}"


def again_lines(
    stage: str, profile: Profile, wanted: Resources, root: Path, argv: Sequence[str]
) -> list[str]:
    """Lines that have Slurm start the job again after its end.

    For a training that lost a rank; and for what ran in a container, where Slurm's commands
    are missing, and left a file that asks for it (`sunpipe.stop.requeue`).
    """
    ranks = STAGES[stage].ranks and not STAGES[stage].mpi
    if not ranks and not profile.container:
        return []
    python = python_command(profile, wanted, root)
    file = shlex.quote(str(arguments_file(root, argv)))
    lost = [
        "    if (($1 > 128 || $1 == 76)); then",
        f"        SUNPIPE_ROOT={shlex.quote(str(root))} {python} -m sunpipe.requeue"
        f' --arguments {file} "$1" || true',
        "    fi",
    ]
    return [
        f"export SUNPIPE_REQUEUE_FILE={shlex.quote(str(root))}/requeues/$SLURM_JOB_ID.asked",
        "sunpipe_again() {",
        *(lost if ranks else []),
        '    if [[ -e "$SUNPIPE_REQUEUE_FILE" ]]; then',
        '        asked=$(<"$SUNPIPE_REQUEUE_FILE")',
        '        rm -f "$SUNPIPE_REQUEUE_FILE"',
        '        shown=$(SLURM_TIME_FORMAT=standard scontrol --oneliner show job "$SLURM_JOB_ID")',
        # Whether a SIGTERM was a preemption only Slurm knows (`sunpipe.stop.preempted`).
        '        if [[ "$shown" == *" JobState=RUNNING "* ]] &&'
        ' [[ "$asked" != preempted || "$shown" == *" PreemptTime="[0-9]* ]]; then',
        '            scontrol requeue "$SLURM_JOB_ID"',
        "        fi",
        "    fi",
        "}",
        "trap 'sunpipe_again $?' EXIT",
    ]


def setup_lines(
    stage: str, profile: Profile, wanted: Resources, root: Path, argv: Sequence[str]
) -> list[str]:
    """Lines of the batch script before the stage."""
    lines = []
    if profile.modules:
        lines += [MODULES, f"module load {shlex.join(profile.modules)} || exit 1"]
    if profile.setup:
        file = shlex.quote(profile.setup)
        said = f'echo "sunpipe:" {file} "(setup of the profile) ended with exit code $?" >&2'
        lines.append(f"source {file} || {{ {said}; exit 1; }}")
    return lines + again_lines(stage, profile, wanted, root, argv)


def slurm_parameters(
    stage: str, profile: Profile, wanted: Resources, setup: Sequence[str] = (),
    after: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Parameters of submitit's executor for one stage.

    Parameters
    ----------
    setup : sequence of str
        Lines of the script before the stage.
    after : sequence of str
        Job ids that must end well first; if one fails the job is cancelled.
    """
    srun = [f"--cpus-per-task={wanted.cpus_per_task}"]  # srun no longer takes it from sbatch
    if STAGES[stage].mpi:
        # a rank that dies ends those that wait for it
        srun += ["--kill-on-bad-exit=1", f"--mpi={profile.mpi}"]
    elif STAGES[stage].ranks:
        # the ranks that are left end by themselves, and say who was lost
        srun += ["--kill-on-bad-exit=0", "--wait=120"]
    limit = wanted.array_parallel
    at_once = STAGES[stage].parallel if limit is None else limit
    more: dict[str, Any] = {"requeue": True}
    if after:
        more["kill-on-invalid-dep"] = "yes"
    options = {
        "partition": wanted.partition, "account": wanted.account, "qos": wanted.qos,
        "constraint": wanted.constraint, "mem": wanted.mem,
        "gpus_per_node": wanted.gpus_per_node, "dependency": "afterok:" + ":".join(after)
        if after else "", "setup": list(setup),
    }  # fmt: skip
    return {
        "job_name": f"sunpipe-{stage}", "time": minutes(wanted.time), "nodes": wanted.nodes,
        "ntasks_per_node": wanted.tasks_per_node, "cpus_per_task": wanted.cpus_per_task,
        "signal_delay_s": profile.signal_s, "stderr_to_stdout": True, "wckey": None,
        "srun_args": srun, "additional_parameters": more,
        "array_parallelism": at_once or MOST_PARTS,
        **{key: value for key, value in options.items() if value},
    }  # fmt: skip
