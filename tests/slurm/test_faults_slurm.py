"""One training through a bad day; each fault alone, many times, is `benchmarks/faults.py`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults_rig import Rig, kill, until
from hpc import daemon
from hpc.cluster import Cluster
from sunpipe.errors import DataError, UsageError
from sunpipe.lock import running
from sunpipe.paths import Layout
from tests.conftest import need

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]


@pytest.fixture
def rig(tiny_root: Path, tmp_path: Path) -> Iterator[Rig]:
    """A cluster of its own: its daemons are killed. A node is given up after 15 seconds."""
    need("slurmctld")
    cluster = Cluster(tmp_path / "cluster")
    cluster.up(4)
    try:
        text = cluster.conf.read_text()
        cluster.conf.write_text(re.sub(r"SlurmdTimeout=\d+", "SlurmdTimeout=15", text))
        cluster.restart("slurmctld")
        yield Rig(cluster, tmp_path, tiny_root / "shards", kimg=0.4)
    finally:
        token = cluster.token
        cluster.down()
    assert daemon.leftovers(token) == []


def test_a_training_survives_controller_node_and_checkpoint(rig: Rig) -> None:
    one, straight = rig.training("one"), rig.training("straight")
    one.submit()
    straight.submit()
    one.first_images()

    alive, reached = one.pids(), one.newest
    kill([rig.daemon_pid("slurmctld")])
    until("a checkpoint without a controller", lambda: one.newest > reached)
    rig.cluster.restart("slurmctld")
    assert one.pids() == alive
    with (
        pytest.raises(DataError, match="another process is"),
        running(Layout(one.root), "train", "tiny"),
    ):
        pass

    node = rig.slurm("scontrol", "show", "hostnames", rig.state(one.job)["NodeList"]).stdout
    lost, before_loss = node.split()[1], one.text()
    kill([rig.daemon_pid(f"slurmd-{lost}"), *rig.on_node(lost)])
    until("the end of the other rank", lambda: not set(alive) & set(one.pids()), 90)
    assert one.lines("rank 1 ended without a word")
    torn, before = one.checkpoints[-1], one.checkpoints[-2]
    weights = torn / "G.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    one.again(before_loss, time.monotonic())
    assert one.lines(f"checkpoint {torn.name} passed over: G.safetensors was altered or cut short")
    assert one.lines(f"^resumed from {before.name}")
    assert lost not in rig.state(one.job)["NodeList"]
    until("both ends", lambda: one.ended() and straight.ended(), 300)
    assert rig.state(one.job)["JobState"] == "COMPLETED"
    assert rig.state(one.job)["Restarts"] == "1"
    assert one.newest == straight.newest == "kimg-000000.400"
    assert one.digests() == straight.digests()

    rig.cluster.restart(f"slurmd-{lost}")
    until("the lost node", lambda: "DOWN" not in rig.slurm("scontrol", "show", "node", lost).stdout)
    assert rig.slurm("srun", f"--nodelist={lost}", "true").returncode == 0
    with pytest.raises(UsageError, match="no daemon called 'munged'"):
        rig.cluster.restart("munged")
