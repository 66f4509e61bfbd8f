"""What sbatch is given of the environment: nothing of a job around it, nothing against the profile.

sbatch hands its whole environment on. In ``salloc``, ``srun --pty bash`` or a job, that holds the
outer job's SLURM_* variables: an array's number would have the new job look for another's work,
and a memory limit contradicts its own. And SBATCH_* variables win over the lines of a script.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from hpc.profile import Resources
from sunpipe.stage import log

OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_",
            "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_", "OMPI_APP_CTX_", "OMPI_NUM_APP_CTX",
            "OMPI_FIRST_RANKS", "OMPI_FILE_LOCATION", "OMPI_COMMAND", "OMPI_ARGV",
            "SUNPIPE_REQUEUE_FILE")  # fmt: skip
# Which cluster is asked, and how, and the srun option --mpi: not the outer job's, but its user's.
OF_THE_USER = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT",
                         "SLURM_MPI_TYPE"})  # fmt: skip
PMIX_SETTINGS = "PMIX_MCA_"  # a site's or a user's, as OMPI_MCA_ is
# What each batch script says for itself.
ALWAYS = ("JOB_NAME", "TIMELIMIT", "OUTPUT", "ERROR", "SIGNAL", "REQUEUE", "NO_REQUEUE",
          "OPEN_MODE", "ARRAY_INX", "GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "WAIT")  # fmt: skip
# What it says only if the profile does: otherwise the variable is as good as a site's default.
IF_NAMED = {"partition": ("PARTITION",), "account": ("ACCOUNT",), "qos": ("QOS",),
            "constraint": ("CONSTRAINT",),
            "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU")}  # fmt: skip


def of_outer_job(environ: Mapping[str, str]) -> set[str]:
    """Names of the variables that belong to the job in which this process runs."""
    if "SLURM_JOB_ID" not in environ:
        return set()
    named = {name for name in environ if name.startswith(OF_A_JOB)}
    return {name for name in named - OF_THE_USER if not name.startswith(PMIX_SETTINGS)}


def against_profile(environ: Mapping[str, str], wanted: Resources) -> set[str]:
    """Names of the SBATCH_* variables that would override what the profile says."""
    named = [name for key, names in IF_NAMED.items() if getattr(wanted, key) for name in names]
    return {f"SBATCH_{name}" for name in (*ALWAYS, *named)} & environ.keys()


@contextmanager
def submitting(wanted: Resources) -> Iterator[None]:
    """Take what does not belong to a new job out of the environment while the block runs."""
    before = dict(os.environ)
    if over := sorted(against_profile(before, wanted)):
        log(f"{', '.join(over)} of this shell: left out, the profile decides")
    for name in of_outer_job(before) | set(over):
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
