"""What sbatch sees of the environment it is called in."""

from __future__ import annotations

import os

import pytest

from hpc.profile import Resources
from hpc.submit_env import against_profile, of_outer_job, submitting


def test_nothing_of_the_job_around_it_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2",
             "SLURM_MEM_PER_CPU": "100", "SRUN_CPUS_PER_TASK": "4", "PMI_RANK": "0",
             "OMPI_COMM_WORLD_RANK": "0", "OMPI_UNIVERSE_SIZE": "2", "PMIX_RANK": "0",
             "SUNPIPE_REQUEUE_FILE": "/r/again"}  # fmt: skip
    ours = {"SLURM_CONF": "/etc/slurm.conf", "SUNPIPE_CLUSTER": "c.toml", "HOME": "/h",
            "OMPI_MCA_btl": "tcp", "PMIX_MCA_gds": "hash", "SLURM_MPI_TYPE": "pmix"}  # fmt: skip
    assert of_outer_job(outer | ours) == set(outer)
    assert of_outer_job({"SLURM_MEM_PER_CPU": "100"}) == set()  # no job: its user's wish
    for name, value in (outer | ours).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with submitting(Resources()):
        assert not set(outer) & os.environ.keys()
        assert ours.items() <= os.environ.items()
    assert dict(os.environ) == before


def test_the_profile_wins_over_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = {"SBATCH_TIMELIMIT": "7", "SBATCH_PARTITION": "cpu", "SBATCH_ACCOUNT": "sun",
             "SBATCH_MEM_PER_CPU": "1G", "SBATCH_RESERVATION": "r"}  # fmt: skip
    assert against_profile(shell, Resources()) == {"SBATCH_TIMELIMIT"}
    wanted = Resources(partition="gpu", mem="64G")
    found = against_profile(shell, wanted)
    assert found == {"SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_MEM_PER_CPU"}
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    with submitting(wanted):
        assert os.environ["SBATCH_ACCOUNT"] == "sun"  # the profile leaves it to the site
        assert os.environ["SBATCH_RESERVATION"] == "r"
        assert not found & os.environ.keys()
    assert os.environ["SBATCH_PARTITION"] == "cpu"
    said = "SBATCH_MEM_PER_CPU, SBATCH_PARTITION, SBATCH_TIMELIMIT of this shell: left out"
    assert said in capsys.readouterr().err
