"""A real four-node Slurm for the whole session, in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpc import daemon
from hpc.cluster import Cluster
from tests.conftest import REPO, need

PROFILE = """\
[default]
time = "00:10:00"
[stages.shard]
nodes = 2
[stages.train]
nodes = 2
[stages.directions]
array = 2
[stages.embed]
array = 2
"""
SMALL = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=0")


class Slurm:
    """Slurm's commands against the cluster of this session."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.env = {**os.environ, "SLURM_CONF": str(cluster.conf), "OMP_NUM_THREADS": "1"}

    def run(self, *argv: str | Path, root: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's folder with this cluster in its environment."""
        env = {**self.env, "SUNPIPE_ROOT": str(root)} if root else self.env
        return subprocess.run(
            list(map(str, argv)), env=env, cwd=REPO, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def sunpipe(self, *argv: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
        """Run ``sunpipe`` as a user at the login node would."""
        return self.run(sys.executable, "-m", "sunpipe", *argv, root=root)

    def sbatch(self, *argv: str | Path, root: Path) -> str:
        """Submit one of ``jobs/*.sh``; its log is ``log.txt`` in the data root."""
        done = self.run("sbatch", "--parsable", f"--output={root}/log.txt", *argv, root=root)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def show(self, job: str) -> dict[str, str]:
        """What the controller knows of a job or array task."""
        done = self.run("scontrol", "--oneliner", "show", "job", job)
        assert done.returncode == 0, done.stderr
        return dict(re.findall(r"(\w+)=(\S*)", done.stdout.splitlines()[0]))

    def until(self, what: str, ready: Callable[[], bool], patience: float = 150.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + patience
        while not ready():
            assert time.monotonic() < end, f"{what}: not within {patience} s"
            time.sleep(0.25)

    def wait(self, *jobs: str, patience: float = 200.0) -> dict[str, str]:
        """Wait until jobs have left the queue; job (or array task) to state."""

        def listed() -> str:
            return self.run("squeue", "--noheader", f"--jobs={','.join(jobs)}").stdout.strip()

        self.until(f"jobs {jobs}", lambda: not listed(), patience)
        states = {}
        for job in jobs:
            for line in self.run("scontrol", "--oneliner", "show", "job", job).stdout.splitlines():
                row = dict(re.findall(r"(\w+)=(\S*)", line))
                task = row.get("ArrayTaskId")
                states[f"{job}_{task}" if task else job] = row["JobState"]
        return states

    def preempt(self, job: str) -> None:
        """Send USR2 to the job's step, as Slurm does before a time limit; wait for the requeue.

        Once only: scancel repeats a signal by itself while a job changes its state.
        """
        done = self.run("scancel", "--signal=USR2", job)
        assert done.returncode == 0, done.stderr
        self.until(f"requeue of {job}", lambda: self.show(job)["Restarts"] != "0", 60.0)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    need("slurmctld")
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    cluster.up(4)
    token = cluster.token
    try:
        yield Slurm(cluster)
    finally:
        cluster.down()
    assert daemon.leftovers(token) == []
    assert not cluster.folder.exists()


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster profile for the one-machine Slurm."""
    path = tmp_path_factory.mktemp("profile") / "cluster.toml"
    path.write_text(PROFILE)
    return path
