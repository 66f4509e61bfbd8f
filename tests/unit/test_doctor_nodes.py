"""The doctor and its nodes: busy, absent, refused; and GPUs that only the profile knows of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpc.doctor import data_root, environment, gpus, links, mpi, network, nodes
from hpc.doctor.ask import Answer
from hpc.doctor.bounded import Check, run_checks
from hpc.doctor.checks import ON_NODES, not_checked
from hpc.doctor.finding import BUSY, Finding
from hpc.doctor.place import Place, find_place
from hpc.profile import Profile, load_profile
from sunpipe.config import load_config
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.train.warm import find_source

CPU: dict[str, Any] = {
    "version": "2.13.0+cpu",
    "cuda": None,
    "nccl": None,
    "archs": [],
    "devices": [],
}
CUDA = {**CPU, "version": "2.13.0", "cuda": "13.0"}


def slurm_of(folder: Path, srun: str) -> dict[str, str]:
    """An environment whose only Slurm is a `sinfo` and this `srun`."""
    folder.mkdir(exist_ok=True)
    for name, text in (("sinfo", "true"), ("srun", srun)):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def standing(tmp_path: Path, env: dict[str, str]) -> Place:
    path = tmp_path / "p.toml"
    path.write_text("[stages.train]\nnodes = 2\n")
    return find_place(load_config(None, ()), load_profile(path), tmp_path, srun=True, env=env)


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    env = slurm_of(tmp_path / "bin", f"echo 'srun: error: Unable to allocate resources: {BUSY}' >&2"
                                     "; exit 1")  # fmt: skip
    monkeypatch.setenv("PATH", env["PATH"])
    return standing(tmp_path, env)


def test_nodes_that_others_use_are_no_fault_and_are_asked_once(busy: Place) -> None:
    found = run_checks((), ON_NODES, busy)
    assert [(one.name, one.level) for one in found] == [("nodes", "WARN")]
    assert "2 nodes did not come free" in found[0].seen
    assert not_checked(busy, found) == ["renames across nodes", "mpi under srun", "all-reduce",
                                        "clocks", "scratch"]  # fmt: skip


@pytest.mark.parametrize("check", [data_root.renames_across, mpi.size, links.all_reduce])
def test_nodes_that_were_taken_in_between_are_no_fault(check: Any, busy: Place) -> None:
    assert [one.level for one in check(busy)] == ["WARN"]


def test_slurm_without_srun_is_one_fault(tmp_path: Path) -> None:
    slurm_of(tmp_path / "bin", "true")
    (tmp_path / "bin/srun").unlink()
    found = run_checks((), ON_NODES, standing(tmp_path, {"PATH": str(tmp_path / "bin")}))
    assert [(one.name, one.level) for one in found] == [("nodes", "MISS")]
    assert "srun is not on PATH" in found[0].seen


def test_only_what_follows_on_nodes_is_left_out() -> None:
    def ends(_: Place) -> Finding:
        return Finding("ends", "WARN", "x", "y", ends=True)

    def after(_: Place) -> Finding:
        raise AssertionError

    place = Place("login", {}, Path("/"), load_config(None, ()), None, srun=("srun",))
    good = Check("good", lambda _: Finding("good", "OK", ""))
    found = run_checks((good,), (good, Check("ends", ends), Check("after", after)), place)
    assert [one.name for one in found] == ["good", "good", "ends"]


def test_ranks_of_a_job_may_share_its_one_cpu(tmp_path: Path) -> None:
    """``sbatch -N2 --gpus-per-node=4`` gives four GPUs and one CPU of each node."""
    env = {**slurm_of(tmp_path / "bin", "true"), "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}
    found = find_place(load_config(None, ()), None, tmp_path, env=env)
    assert found.srun is not None
    assert "--overcommit" in found.srun


def test_srun_that_refuses_is_not_blamed_on_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = slurm_of(tmp_path / "bin", "echo 'srun: error: Unable to create step for job 4: Memory"
                                     " required by task is not available' >&2; exit 1")  # fmt: skip
    monkeypatch.setenv("PATH", env["PATH"])
    (found,) = links.all_reduce(standing(tmp_path, env))
    assert (found.level, "Memory required" in found.seen) == ("MISS", True)
    assert "interface" not in found.fix
    assert "--mem" in found.fix


def test_the_rank_that_failed_first_is_heard() -> None:
    err = ("[W1122 TCPStore.cpp:115] recvVector failed\nframe #0: c10::Error\n"
           "sunpipe: rank 2 of 8 lost rank 0 at n1\nsunpipe: Unable to find address for: ib0\n"
           "sunpipe: rank 1 of 8 lost rank 0 at n1\nsrun: error: n1: task 0: Exited with exit code"
           " 1\nslurmstepd-n1: error: *** STEP 1.0 ON n1 CANCELLED ***\n")  # fmt: skip
    assert links.reason(Answer(1, "", err)) == "Unable to find address for: ib0"
    only = Answer(1, "", "sunpipe: rank 1 of 2 lost rank 0\nsrun: error: x\n")
    assert links.reason(only) == "rank 1 of 2 lost rank 0"
    said = Answer(1, "", "ImportError: torch\nsrun: error: x\nslurmstepd: error: y\n")
    assert links.reason(said) == said.words == "ImportError: torch"
    assert Answer(1, "", "srun: error: Invalid MPI type\n").words == "srun: error: Invalid MPI type"


@pytest.mark.parametrize(
    ("torch", "asked", "planned", "complaint", "level", "words"),
    [(CPU, 0, 4, "", "MISS", "the profile asks for 4 GPUs per node, but torch 2.13.0+cpu"),
     (CUDA, 0, 4, "", "OK", "no GPU here"),
     (CUDA, 0, 0, "it has failed", "WARN", "nvidia-smi fails here: it has failed"),
     (CUDA, 4, 4, "it has failed", "MISS", "sees none here (it has failed)"),
     (CPU, 0, 0, "", "OK", "no GPU here")],
)  # fmt: skip
def test_gpus_that_are_elsewhere(
    torch: dict[str, Any], asked: int, planned: int, complaint: str, level: str, words: str
) -> None:
    found = gpus.judge(None, torch, asked, planned, complaint)
    assert (found.level, words in found.seen) == (level, True), found


def test_a_driver_that_does_not_answer_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate'\n"
                   "exit 9\n")  # fmt: skip
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(gpus, "facts_of", lambda _: CUDA)
    found = gpus.torch(Place("login", {}, tmp_path, load_config(None, ()), None))
    assert (found.level, "has failed because" in found.seen) == ("WARN", True)


def test_gpus_are_planned_for_this_python_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[stages.train]\ngpus_per_node = 4\n[stages.ssl]\ngpus_per_node = 8\n")
    assert gpus.planned_gpus(load_profile(path)) == 8
    assert gpus.planned_gpus(None) == gpus.planned_gpus(Profile()) == 0
    path.write_text('python = "/x/python"\n' + path.read_text())
    assert gpus.planned_gpus(load_profile(path)) == 0


def test_some_nodes_that_do_not_answer_do_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = json.dumps({"node": "n1", "time": 0.0})
    monkeypatch.setattr(nodes, "ask", lambda *_: Answer(1, f"{row}\n", "srun: error: n2: x\n"))
    (found,) = nodes.nodes(standing(tmp_path, slurm_of(tmp_path / "bin", "true")))
    assert (found.level, found.ends) == ("MISS", False)
    assert "1 of 2 nodes" in found.seen


def test_the_interface_that_variables_name(tmp_path: Path) -> None:
    def look(where: Any, **env: str) -> list[Finding]:
        return network.interface(Place(where, env, tmp_path, load_config(None, ()), None))

    (found,) = look("login")
    assert (found.level, "lo" in found.seen) == ("OK", True)
    (found,) = look("no slurm", GLOO_SOCKET_IFNAME="nosuch0")
    assert (found.level, "unset GLOO_SOCKET_IFNAME" in found.fix) == ("MISS", True)
    (found,) = look("login", NCCL_SOCKET_IFNAME="nosuch")
    assert (found.level, "sunpipe doctor --srun" in found.fix) == ("WARN", True)
    # NCCL takes each interface that begins so; patterns of others are left to it
    (found,) = look("allocation", NCCL_SOCKET_IFNAME="l", GLOO_SOCKET_IFNAME="lo")
    assert (found.level, found.seen.startswith("lo has ")) == ("OK", True)
    (found,) = look("allocation", NCCL_SOCKET_IFNAME="^docker,lo")
    assert found.seen.startswith("none is named")


def test_the_run_that_a_training_starts_from_is_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(run: str) -> Finding:
        config = load_config(None, [f"train.warm.run={run}"])
        (found,) = environment.weights(Place("login", {}, root, config, None))
        return found

    begun = root / "runs/00001-small/checkpoints/kimg-000012.288"
    begun.mkdir(parents=True)
    found = look("small")
    assert (found.level, "no run 'small' with a whole checkpoint" in found.seen) == ("MISS", True)
    (begun / "COMPLETE").touch()
    for run in ("small", "00001-small", str(begun), str(begun.parents[1])):
        assert (look(run).level, look(run).seen) == ("OK", f"train.warm.run: {begun}")
    assert look("other").level == "MISS"
    # where the training stops to look, and refuses: the first folder that has checkpoints/
    cut = tmp_path / "small"
    (cut / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = look("small")
    assert (found.level, f"{cut} has no whole checkpoint" in found.seen) == ("MISS", True)
    with pytest.raises(DataError, match="has no whole checkpoint"):
        find_source(Layout(root), "small", {}, print)


def test_a_run_that_goes_on_needs_its_source_no_more(root: Path) -> None:
    config = load_config(None, ["train.warm.run=deleted", "name=grown"])
    here = Place("login", {}, root, config, None)
    assert environment.weights(here)[0].level == "MISS"
    begun = root / "runs/00003-grown/checkpoints/kimg-000004.000"
    begun.mkdir(parents=True)
    assert environment.weights(here)[0].level == "MISS"  # stopped before its first save
    (begun / "COMPLETE").touch()
    (found,) = environment.weights(here)
    assert (found.level, "not needed any more, 00003-grown" in found.seen) == ("OK", True)
    (root / "runs/00004-grown/checkpoints").mkdir(parents=True)  # the newest goes on
    assert environment.weights(here)[0].level == "MISS"
