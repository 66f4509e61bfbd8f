"""The doctor and the status on a real Slurm: on the login side and inside a job of two nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hpc import daemon
from hpc.doctor import slurm as slurm_checks
from hpc.doctor.place import find_place
from hpc.profile import load_profile
from hpc.status.runs import read_run
from sunpipe.config import load_config
from tests.conftest import REPO
from tests.slurm.conftest import Slurm

pytestmark = pytest.mark.slurm
TINY = REPO / "configs/tiny.toml"


@pytest.fixture
def login(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """This process stands on the login node."""
    monkeypatch.setenv("SLURM_CONF", str(slurm.cluster.conf))
    return slurm


def test_inside_a_job_of_two_nodes_the_network_is_measured(slurm: Slurm, tmp_path: Path) -> None:
    root, profile = tmp_path / "root", tmp_path / "p.toml"
    root.mkdir()
    profile.write_text('interface = "lo"\n[stages.shard]\nnodes = 2\n')
    script = tmp_path / "doctor.sh"
    script.write_text(f"#!/bin/bash\nexec {sys.executable} -m sunpipe doctor --json -c {TINY}"
                      f" --cluster {profile} >{tmp_path}/found.json\n")  # fmt: skip
    options = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--job-name=doctor")
    job = slurm.sbatch(*options, script, root=root)
    assert slurm.wait(job) == {job: "COMPLETED"}, (root / "log.txt").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["where"], found["ok"], found["not_checked"]) == ("allocation", True, [])
    rows = {row["name"]: row for row in found["checks"]}
    assert all(row["level"] == "OK" or row["fix"] for row in rows.values())
    for name in ("torch", "hdf5", "faiss", "mpi", "slurm", "renames", "locks", "nodes",
                 "renames across nodes", "locks across nodes", "mpi under srun", "clocks",
                 "clocks of ranks", "interface on nodes"):  # fmt: skip
        assert rows[name]["level"] == "OK", rows[name]
    assert "2 ranks on 2 nodes" in rows["mpi under srun"]["seen"]
    assert "gloo, 2 ranks on n" in rows["all-reduce"]["seen"]
    measured = float(rows["all-reduce"]["seen"].partition(" GB/s")[0].rpartition(" ")[2])
    assert 0.001 < measured < 1000
    assert rows["all-reduce"]["level"] in ("OK", "WARN")  # slow where others use the cores
    assert rows["data root"]["level"] in ("OK", "WARN")  # a disk of this machine, for two nodes
    assert [path.name for path in root.iterdir()] == ["log.txt"]


def test_what_slurm_would_not_take_is_said_before_it_is_queued(
    login: Slurm, tmp_path: Path
) -> None:
    before = login.run("squeue", "--noheader", "--states=all", "--format=%i").stdout
    path = tmp_path / "p.toml"
    path.write_text('[stages.shard]\npartition = "nosuch"\n[stages.train]\nnodes = 9\n'
                    'gpus_per_node = 4\n[stages.ssl]\ngpus_per_node = 9\n')  # fmt: skip
    place = find_place(load_config(None, ()), load_profile(path), tmp_path)
    assert place.where == "login"
    assert slurm_checks.reachable(place).level == "OK"
    found = slurm_checks.accepted(place)
    assert [row.level for row in found] == ["OK", "MISS", "MISS", "MISS"]
    assert "fetch, sample, directions" in found[0].seen
    said = {row.seen.partition(":")[0]: row.seen for row in found[1:]}
    assert "invalid partition specified: nosuch" in said["not shard"]
    assert {"not train", "not ssl"} <= said.keys()
    after = login.run("squeue", "--noheader", "--states=all", "--format=%i").stdout
    assert after == before


def look(slurm: Slurm, root: Path) -> dict[str, Any]:
    done = slurm.sunpipe("status", "--json", root=root)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_status_of_waiting_running_failed_and_lost(
    slurm: Slurm, profile: Path, tiny_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_root / "shards", tmp_path / "shards")
    one = tmp_path / "one.toml"
    one.write_text('[default]\ntime = "00:10:00"\n')
    launched = slurm.sunpipe("launch", "train", "-c", TINY, "--cluster", one, "--set",
                             "train.kimg=100", "--json", root=tmp_path)  # fmt: skip
    train = json.loads(launched.stdout)["job"]
    launched = slurm.sunpipe("launch", "embed", "-c", TINY, "--cluster", profile, "--json",
                             "--force", root=tmp_path)  # fmt: skip
    embed = json.loads(launched.stdout)["job"]
    job = ("sbatch", "--parsable", f"--output={tmp_path}/x.txt", "--wrap=sleep 60")
    after = slurm.run(*job, "--job-name=sunpipe-sample", f"--dependency=afterok:{train}").stdout
    later = slurm.run(*job, "--job-name=sunpipe-report", "--begin=now+300").stdout
    told = tmp_path / "runs/00000-tiny/status.json"
    slurm.until("a training", lambda: told.exists() and '"running"' in told.read_text())
    slurm.wait(f"{embed}_0", f"{embed}_1")

    found = look(slurm, tmp_path)
    assert found["slurm"] == "ok"
    rows = {row["id"]: row for row in found["jobs"]}
    assert (rows[train]["stage"], rows[train]["state"], rows[train]["nodes"]) == (
        "train", "running", 1)  # fmt: skip
    assert rows[train]["where"].startswith("n")
    assert rows[train]["left_s"] > 60
    assert rows[after.strip()]["why"] == f"waits for job {train}"
    assert rows[later.strip()]["why"].startswith("starts at the time asked for, in ")
    (run,) = found["runs"]
    assert (run["run"], run["state"], run["job"], run["target_kimg"]) == (
        "00000-tiny", "running", train, 100.0)  # fmt: skip
    assert run["kimg"] is not None
    (failed,) = [row for row in found["failed"] if row["id"] == embed]
    assert (failed["stage"], failed["tasks"]) == ("embed", ["1/2", "2/2"])
    assert "run sunpipe ssl first" in failed["words"]
    assert Path(failed["log"]).is_file()
    assert failed["again"] == (f"for part in 1/2 2/2; do sunpipe launch embed --cluster {profile}"
                               f" -c {TINY} --part $part; done")  # fmt: skip

    # Its processes are killed where they stand: nobody is left to say so.
    killed = 0
    for pid in daemon.leftovers(slurm.cluster.token):
        with suppress(OSError):  # it has just ended
            if b"train" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2:4]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert killed
    slurm.run("scancel", train, after.strip(), later.strip())
    slurm.wait(train)
    (run,) = look(slurm, tmp_path)["runs"]
    assert run["note"].startswith(f"job {train} is not in th")
    assert run["state"] == ("running" if "files changed" in run["note"] else "lost?")  # by its age
    line = read_run(tmp_path / "runs/00000-tiny", {}, time.time() + 300)
    assert (line.state, line.note) == ("lost?", f"job {train} is not in the queue any more")
