"""Submission without Slurm: command lines, batch scripts, refusals, the job that is pickled."""

from __future__ import annotations

import json
import pickle
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpc import local
from hpc.argv import all_parts, stage_argv
from hpc.launch import StageJob, batch_script
from hpc.profile import Profile, Resources, load_profile
from hpc.script import job_environment, python_command, setup_lines, slurm_parameters
from sunpipe.errors import EXIT_STOPPED, UsageError
from tests.conftest import REPO, Cli

EXAMPLE = REPO / "configs/clusters/example.toml"
TINY = REPO / "configs/tiny.toml"


def header(script: str) -> dict[str, str | bool]:
    """Parse the ``#SBATCH`` lines back as sbatch does."""
    found: dict[str, str | bool] = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "))
            key, equals, value = word.removeprefix("--").partition("=")
            found[key] = value if equals else True
    return found


def test_stage_argv_makes_paths_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    assert stage_argv("index", Path("configs/tiny.toml"), ["a.b=1"], ["--dry-run"]) == [
        "index", "build", "--config", str(TINY), "--set", "a.b=1", "--dry-run"]  # fmt: skip


def test_parts_are_counted_from_one() -> None:
    assert all_parts("embed", 2, None) == [["embed", "--part", "1/2"], ["embed", "--part", "2/2"]]
    assert all_parts("embed", 4, None, part=(3, 4)) == [["embed", "--part", "3/4"]]
    assert all_parts("directions", 1, None) == [["directions", "fit"]]
    with pytest.raises(UsageError, match="has no parts"):
        all_parts("train", 2, None)
    with pytest.raises(UsageError, match="no stage 'traim'; stages: fetch"):
        all_parts("traim", 1, None)


@pytest.mark.parametrize(
    "value", ["a\nb", "\r", "\0", "\x1b[0m", "\x7f", "\x85", "\u2028", "\u202e"]
)
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="control character"):
        stage_argv("train", None, [f"report.title={value}"])


def test_printable_characters_of_any_kind_pass() -> None:
    value = "αβγ → 6173 Å, $(x) 'y' \"z\" ; | & # % \\ "
    assert f"report.title={value}" in stage_argv("train", None, [f"report.title={value}"])


def test_script_of_training(root: Path) -> None:
    profile = load_profile(EXAMPLE)
    script = batch_script("train", [["train"]], profile, profile.stages.train)
    assert header(script) == {
        "job-name": "sunpipe-train", "nodes": "2", "ntasks-per-node": "4", "gpus-per-node": "4",
        "cpus-per-task": "8", "time": "1440", "signal": "USR2@300", "requeue": True,
        "open-mode": "append", "output": f"{root}/slurm/%j_0_log.out",
    }  # fmt: skip
    command = script.strip().splitlines()[-1]
    words = shlex.split(command)
    assert words[0] == "srun"
    assert "--cpus-per-task=8" in words
    assert not any(word.startswith("--mpi") for word in words)
    assert words[-4:] == ["-u", "-m", "submitit.core._submit", f"{root}/slurm"]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_script_of_an_array_that_waits(root: Path) -> None:
    profile = load_profile(EXAMPLE)
    script = batch_script("embed", 4 * [["embed"]], profile, profile.stages.embed, ["7", "8_1"])
    found = header(script)
    assert found["array"] == "0-3%4"
    assert found["dependency"] == "afterok:7:8_1"
    assert found["kill-on-invalid-dep"] == "yes"


@pytest.mark.parametrize(
    ("stage", "limit", "found"),
    [("fetch", None, 2), ("fetch", 3, 3), ("fetch", 0, 8), ("embed", None, 8), ("embed", 1, 1)],
)
def test_an_array_is_throttled(root: Path, stage: str, limit: int | None, found: int) -> None:
    script = batch_script(stage, 8 * [[stage]], Profile(), Resources(array_parallel=limit))
    assert header(script)["array"] == f"0-7%{found}"


def test_mpi_only_where_it_is_needed() -> None:
    profile = Profile(mpi="pmix")
    assert "--mpi=pmix" in slurm_parameters("shard", profile, Resources())["srun_args"]
    assert "--mpi=pmix" not in slurm_parameters("train", profile, Resources())["srun_args"]


def test_site_details_come_from_the_profile(root: Path) -> None:
    profile = Profile(modules=("python/3.11", "cuda/12.8"), setup="/sw/site.sh", interface="ib0")
    lines = setup_lines("report", profile, Resources(), root, ["report"])
    assert lines[1] == "module load python/3.11 cuda/12.8 || exit 1"
    assert lines[2].startswith("source /sw/site.sh || {")
    env = job_environment(profile, Resources(), root)
    assert env["NCCL_SOCKET_IFNAME"] == env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert env["SUNPIPE_ROOT"] == str(root)
    wanted = Resources(partition="gpu", account="sun", qos="long", constraint="h200&ib", mem="64G")
    found = header(batch_script("report", [["report"]], profile, wanted))
    assert (found["partition"], found["account"], found["qos"]) == ("gpu", "sun", "long")
    assert (found["constraint"], found["mem"]) == ("h200&ib", "64G")


def test_container(root: Path) -> None:
    profile = Profile(container="/img/sun.sif")
    assert python_command(profile, Resources(gpus_per_node=1), Path("/data")) == (
        "apptainer exec --nv --bind /data /img/sun.sif python3")  # fmt: skip
    assert "--nv" not in python_command(profile, Resources(), Path("/data"))


@pytest.mark.parametrize("name", ["a b", "a%j", "a'b", "a\nb", "a$b", "a;b"])
def test_a_data_root_that_a_script_cannot_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SUNPIPE_ROOT", str(tmp_path / name))
    with pytest.raises(UsageError, match="SUNPIPE_ROOT"):
        batch_script("train", [["train"]], Profile(), Resources())


def test_what_is_pickled_is_a_name_and_a_list() -> None:
    import cloudpickle

    job = StageJob(("train", "--set", "x=$(touch X)"), (("A", "b"),))
    content = cloudpickle.dumps(job)
    assert b"hpc.launch" in content
    assert len(content) < 400  # no code, no globals
    assert pickle.loads(content) == job


def test_the_job_becomes_sunpipe_with_usr2_held_back(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    seen: dict[str, Any] = {}

    def execve(path: str, argv: list[str], env: dict[str, str]) -> None:
        seen.update(path=path, argv=argv, env=env)

    monkeypatch.setattr("os.execve", execve)
    try:
        StageJob(("train", "--set", "a=b c"), (("SUNPIPE_ROOT", "/r"),))()
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    assert seen["argv"] == [sys.executable, "-m", "sunpipe", "train", "--set", "a=b c"]
    assert seen["env"]["SUNPIPE_ROOT"] == "/r"


def test_print_script_needs_no_slurm(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = cli("launch", "train", "-c", TINY, "--cluster", EXAMPLE, "--print-script",
               env={"PATH": str(tmp_path / "bin")})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "sunpipe train --config" in done.stderr
    sent = cli("launch", "fetch", "-c", TINY, "--cluster", EXAMPLE,
               env={"PATH": str(tmp_path / "bin")})  # fmt: skip
    assert sent.returncode == 1
    assert "sbatch not found" in sent.stderr


def test_local_runs_the_same_command_here(cli: Cli, root: Path) -> None:
    done = cli("launch", "fetch", "-c", TINY, "--local", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["new"] == 15
    parts = cli("launch", "fetch", "-c", TINY, "--local", "--array", "2", "--json")
    assert [part["new"] for part in json.loads(parts.stdout)["parts"]] == [0, 0]
    failed = cli("launch", "train", "-c", TINY, "--local", "--set", "dataset=nothing")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["traim", "--local"], "no stage 'traim'"),
        (["train", "--local", "--set", "train.bacth=3"], "did you mean batch?"),
        (["train", "--local", "--array", "2"], "train has no parts"),
        (["train", "--local", "--part", "1/1"], "train has no parts"),
        (["fetch", "--local", "--print-script"], "no script to print"),
        (["embed", "--local", "--part", "0/4"], "write I/N"),
        (["embed", "--local", "--part", "1/4", "--array", "4"], "do not go together"),
        (["train"], "--cluster FILE"),
        (["train", "--cluster", "missing.toml"], "no such"),
    ],
)
def test_mistakes_are_seen_before_anything_is_submitted(
    cli: Cli, root: Path, argv: list[str], words: str
) -> None:
    done = cli("launch", *argv, env={"SUNPIPE_CLUSTER": ""})
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(root.iterdir()) == []


def test_a_stage_that_python_ends_by_sigint_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when ctrl-C came inside an extension's start, whatever the exit code was."""
    script = """if True:
        import os, signal, time
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(30)"""
    monkeypatch.setattr(local, "stage_command", lambda argv: [sys.executable, "-c", script])
    assert local.run_here(["shard"])[0] == EXIT_STOPPED
