"""The one-machine Slurm without starting one: texts, processes, refusals."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from hpc import daemon, machine, slurm_conf
from hpc.cluster import Cluster
from hpc.machine import find_programs, free_ports
from hpc.slurm_conf import Site
from sunpipe.errors import DataError, UsageError
from tests.conftest import Cli

SITE = Site("sun", Path("/c"), Path("/c/run"), "host", "me", 3, (1, 2, 3, 11, 12, 13), (22, 5))


def test_slurm_conf_names_every_node_with_its_port() -> None:
    text = slurm_conf.slurm_conf(SITE)
    nodes = re.findall(r"^NodeName=(\S+) .*Port=(\d+)", text, re.MULTILINE)
    assert nodes == [("n1", "11"), ("n2", "12"), ("n3", "13")]
    assert "cred_expire=5" in text
    assert "SlurmUser=me" in text
    assert "NodeName=n[1-3] " in slurm_conf.gres_conf(SITE)


def test_only_newer_slurm_is_told_about_cgroups() -> None:
    assert slurm_conf.cgroup_conf(SITE) == ""
    newer = Site("sun", Path("/c"), Path("/c/run"), "host", "me", 1, (1, 2, 3, 4), (23, 11))
    assert slurm_conf.cgroup_conf(newer) == "CgroupPlugin=disabled\n"


def test_mariadb_runs_as_root_only_for_root() -> None:
    assert "--user=root" not in slurm_conf.mariadb_options(SITE)


@pytest.mark.parametrize("name", ["sh", "a b", "x) (y", ")"])
def test_parse_stat_survives_any_command_name(name: str) -> None:
    fields = ["S", "7", *["0"] * 17, "4242", "0"]
    assert daemon.parse_stat(f"12 ({name}) {' '.join(fields)}\n") == ("S", 7, 4242)


@pytest.fixture
def sleeper(tmp_path: Path) -> daemon.Daemon:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; " \
           "time.sleep(60)'], env={}); time.sleep(60)"  # fmt: skip
    argv = [sys.executable, "-c", code]
    return daemon.start("sleeper", argv, tmp_path / "log", dict(os.environ), "secret")


def test_a_daemon_is_known_by_token_and_start_time(sleeper: daemon.Daemon) -> None:
    later = daemon.Daemon("sleeper", sleeper.pid, sleeper.started + 1)
    assert daemon.alive(sleeper, "secret")
    assert not daemon.alive(sleeper, "other")
    assert not daemon.alive(later, "secret")
    daemon.stop([later], "secret")
    daemon.stop([sleeper], "other")
    assert daemon.alive(sleeper, "secret")  # neither touched it
    daemon.stop([sleeper], "secret")
    assert not daemon.alive(sleeper, "secret")


def test_leftovers_are_the_marked_and_their_children(sleeper: daemon.Daemon) -> None:
    found: list[int] = []
    while len(found) < 2:  # the child takes a moment
        found = daemon.leftovers("secret")
    assert sleeper.pid in found
    assert os.getpid() not in found
    assert daemon.leftovers("other") == []
    for pid in found:
        os.kill(pid, 9)


def test_free_ports_are_distinct_and_below_the_kernel_s_own() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(10000 <= port < 20000 for port in ports)
    with pytest.raises(DataError, match="no 3 free TCP ports"):
        free_ports(3, 10000, 10002)


def test_missing_programs_give_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SEARCH", "/nonexistent")
    with pytest.raises(DataError, match=r"munged, .*apt-get install slurmctld slurmd"):
        find_programs()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "thesis.tex").touch()
    done = cli("cluster", "up", "--folder", tmp_path)
    assert done.returncode == 2
    assert "is not empty and holds no cluster" in done.stderr
    assert cli("cluster", "down", "--folder", tmp_path).returncode == 0
    assert (tmp_path / "thesis.tex").exists()


def test_a_path_that_slurm_cannot_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose --folder"):
        Cluster(tmp_path / "my cluster").up(1)


def test_info_without_a_cluster(tmp_path: Path, cli: Cli) -> None:
    done = cli("cluster", "info", "--folder", tmp_path / "none")
    assert done.returncode == 1
    assert "sunpipe cluster up" in done.stderr
