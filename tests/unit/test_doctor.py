"""The doctor's frame: where it stands, time limits, levels, and judgements from plain values."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hpc.doctor import bounded, environment, gpus, links, network, nodes, set_up, slurm, software
from hpc.doctor.ask import ask
from hpc.doctor.bounded import Check, run_checks
from hpc.doctor.cli import doctor
from hpc.doctor.data_root import trial_folder
from hpc.doctor.finding import Finding, worst
from hpc.doctor.place import Place, find_place, on_nodes
from hpc.doctor.table import lines
from hpc.profile import Profile, Resources, load_profile
from hpc.slurm_query import NO_CONFIGURATION, Node
from sunpipe.bandwidth import assumed, bus_bandwidth, repeats
from sunpipe.config import load_config
from sunpipe.errors import Stopped, UsageError


def place(root: Path, **more: Any) -> Place:
    given: dict[str, Any] = {"where": "login", "env": {}, "root": root, "profile": None,
                             "config": load_config(None, ()), **more}  # fmt: skip
    return Place(**given)


def test_what_is_not_ok_needs_a_fix() -> None:
    with pytest.raises(ValueError, match="needs a line that fixes it"):
        Finding("disk", "WARN", "full")
    found = [Finding("a", "OK", ""), Finding("b", "MISS", "", "x"), Finding("c", "WARN", "", "x")]
    assert worst(found) == "MISS"
    assert worst([found[0], found[2]]) == "WARN"
    assert worst(found[:1]) == worst([]) == "OK"


def test_a_check_that_hangs_or_breaks_ends_in_a_line(tmp_path: Path) -> None:
    def hangs(_: Place) -> Finding:
        time.sleep(120)
        raise AssertionError

    def breaks(_: Place) -> Finding:
        raise KeyError("x")

    def stalls(_: Place) -> Finding:
        raise OSError(5, "Input/output error", "/data")

    started = time.monotonic()
    found = run_checks(
        (Check("hangs", hangs, 0.3), Check("breaks", breaks), Check("stalls", stalls)),
        (Check("fine", lambda _: Finding("fine", "OK", "seen")),), place(tmp_path),
    )  # fmt: skip
    assert time.monotonic() - started < 60
    assert [(one.name, one.level) for one in found] == [
        ("hangs", "MISS"), ("breaks", "MISS"), ("stalls", "MISS"), ("fine", "OK"),
    ]  # fmt: skip
    assert "no answer within 0.3 s" in found[0].seen
    assert "KeyError" in found[1].seen
    assert found[2].seen == "Input/output error: /data"


LIMITS = (0.5, 20.0)  # seconds; on a busy machine a program may need more to begin


def written(note: Path) -> bool:
    return note.exists() and note.read_text() != ""


def ended(note: Path) -> bool:
    """Whether the process whose number is in `note` ends soon."""
    stat = Path(f"/proc/{note.read_text().strip()}/stat")
    for _ in range(300):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    for limit in LIMITS:
        started = time.monotonic()
        answer = ask(["bash", "-c", f"sleep 600 & echo $! > {note}; wait"], limit)
        assert time.monotonic() - started < 60
        assert answer.late
        assert answer.words == f"bash gave no answer within {limit:g} s"
        if written(note):
            break
    assert ended(note)


def leaves(here: Place) -> Finding:
    """A check with a folder on trial, a program that hangs, and one more if it may."""
    with trial_folder(here.root) as folder:
        (folder / "x").touch()
        ask(["bash", "-c", f"echo $$ > {here.root}/pid; exec sleep 600"], 300)
        ask(["touch", f"{here.root}/second"], 5)
    return Finding("leaves", "OK", "")


def test_a_check_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    for limit in LIMITS:
        (found,) = run_checks((Check("leaves", leaves, limit),), (), place(tmp_path))
        assert found.level == "MISS"
        if written(tmp_path / "pid"):
            break
    assert ended(tmp_path / "pid")
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    started = Path(tmp_path / "pid")

    def interrupt() -> None:
        while not written(started):
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_checks((Check("leaves", leaves, 120.0),), (), place(tmp_path))
    assert ended(started)
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]


def test_an_interrupted_doctor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)  # of scancel

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(bounded, "run_checks", interrupted)
    with pytest.raises(Stopped, match="doctor interrupted; what it had started is ended"):
        doctor()
    assert signal.getsignal(signal.SIGTERM) is before


def test_programs_that_fail_or_are_missing_say_so() -> None:
    assert ask(["/no/such"], 1).words == "/no/such: No such file or directory"
    assert ask(["bash", "-c", "exit 3"], 60).words == "exit code 3 without a word"
    said = ask(["bash", "-c", r"printf 'first\n\033[31mred\n' >&2; exit 1"], 60).words
    assert "\033" not in said
    assert said.endswith("red")


@pytest.mark.parametrize(
    ("env", "where", "nodes_", "tasks"),
    [({"PATH": "/nowhere"}, "no slurm", 1, 1), ({}, "login", 1, 1),
     ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "4"}, "allocation", 4, 1),
     ({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}, "allocation",
      2, 4)],
)  # fmt: skip
def test_where_it_stands(env: dict[str, str], where: str, nodes_: int, tasks: int, tmp_path: Path
                         ) -> None:  # fmt: skip
    (tmp_path / "sinfo").touch(mode=0o755)
    found = find_place(load_config(None, ()), None, tmp_path, env={"PATH": str(tmp_path), **env})
    assert (found.where, found.nodes, found.tasks_per_node) == (where, nodes_, tasks)
    assert (found.srun is not None) == (where == "allocation")


def test_slurm_without_a_cluster_is_no_slurm(tmp_path: Path) -> None:
    """As `sunpipe status` sees it: the commands are installed, but there is no slurm.conf."""
    program = tmp_path / "sinfo"
    program.write_text(f"#!/bin/sh\necho 'sinfo: fatal: {NO_CONFIGURATION}' >&2\nexit 1\n")
    program.chmod(0o755)
    env, config = {"PATH": str(tmp_path)}, load_config(None, ())
    found = find_place(config, None, tmp_path, env=env)
    assert found.where == "no slurm"
    row = slurm.reachable(found)
    assert (row.level, "no slurm.conf" in row.seen) == ("WARN", True)
    with_profile = find_place(config, Profile(), tmp_path, env=env)
    assert slurm.reachable(with_profile).level == "MISS"
    with pytest.raises(UsageError, match=r"needs Slurm: no slurm\.conf"):
        find_place(config, None, tmp_path, srun=True, env=env)
    bare = find_place(config, None, tmp_path, env={"PATH": "/nowhere"})
    assert "not on PATH" in slurm.reachable(bare).seen


def test_srun_asks_for_what_a_training_gets(tmp_path: Path) -> None:
    (tmp_path / "sinfo").touch(mode=0o755)
    path = tmp_path / "p.toml"
    path.write_text('[default]\naccount = "sun"\n[stages.train]\nnodes = 3\ngpus_per_node = 4\n'
                    'tasks_per_node = 4\nqos = "short"\n')  # fmt: skip
    env = {"PATH": str(tmp_path)}
    found = find_place(load_config(None, ()), load_profile(path), tmp_path, True, env)
    argv = on_nodes(found, 2, 1, "true", mpi="pmix")
    assert {"--account=sun", "--qos=short", "--gpus-per-node=4", "--nodes=2", "--ntasks=2",
            "--mpi=pmix", "--time=5"} <= {*argv}  # fmt: skip
    assert argv[0] == "srun"
    assert argv[-1] == "true"


def test_ranks_of_a_step_do_not_each_run_it(tmp_path: Path) -> None:
    env = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "7"}
    with pytest.raises(UsageError, match="run it once"):
        find_place(load_config(None, ()), None, tmp_path, env=env)
    with pytest.raises(UsageError, match="its commands are not on PATH"):
        find_place(load_config(None, ()), None, tmp_path, srun=True, env={"PATH": "/nowhere"})


TORCH = {"version": "2.13.0", "cuda": "13.0", "nccl": "2.29.3", "archs": ["sm_90"],
         "devices": [{"name": "H200", "capability": "9.0", "bytes": 150 * 2**30}] * 2}  # fmt: skip
H200 = gpus.Driver(("NVIDIA H200", "NVIDIA H200"), "580.65.06", (13, 0))


@pytest.mark.parametrize(
    ("driver", "torch", "asked", "level", "words"),
    [(H200, TORCH, 2, "OK", "150 GiB each"),
     (H200, {**TORCH, "cuda": "13.2"}, 2, "OK", "computes on all"),  # minor versions are compatible
     (H200, {**TORCH, "cuda": "14.0"}, 2, "MISS", "needs CUDA 14.0"),
     (H200, {**TORCH, "cuda": None, "devices": []}, 2, "MISS", "for the CPU only"),
     (H200, {**TORCH, "devices": TORCH["devices"][:1]}, 2, "WARN", "torch sees 1"),
     (H200, {**TORCH, "devices": []}, 2, "MISS", "torch sees 0"),
     (H200, {**TORCH, "devices": [{"name": "H200", "fault": "no kernel image"}] * 2}, 2, "MISS",
      "GPU 0 (H200): no kernel image"),
     (None, TORCH, 4, "MISS", "nvidia-smi sees none"),
     (None, TORCH, 0, "OK", "no GPU here"),
     (H200, {"fault": "ImportError: libcudart"}, 2, "MISS", "libcudart")],
)  # fmt: skip
def test_gpus_against_wheels(
    driver: gpus.Driver | None, torch: dict[str, Any], asked: int, level: str, words: str
) -> None:
    found = gpus.judge(driver, torch, asked)
    assert found.level == level
    assert words in found.seen


def test_what_nvidia_smi_prints() -> None:
    header = "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |"
    found = gpus.read_driver("NVIDIA H200, 580.65.06\nNVIDIA H200, 580.65.06\n", header)
    assert found == H200
    assert gpus.read_driver("No devices were found", header) is None


def test_locks_of_killed_builds_are_named_and_young_ones_left(tmp_path: Path) -> None:
    old, young = (tmp_path / name / "lock" for name in ("py311_cpu/cpu_adam", "py311_cpu/comm"))
    for lock in (old, young):
        lock.parent.mkdir(parents=True)
        lock.touch()
    os.utime(old, (1, 1))
    assert gpus.stale_locks(tmp_path, time.time()) == [old]
    here = place(tmp_path, env={"TORCH_EXTENSIONS_DIR": str(tmp_path)})
    found = gpus.extensions(here)
    assert found.level == "MISS"
    assert found.fix == f"rm {old}"
    old.unlink()
    assert gpus.extensions(here).level == "OK"


def test_requirements_are_held_against_what_is_installed() -> None:
    have = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "h5py": None, "drms": "0.8.0"}
    assert software.unmet(["numpy>=2", "torch>=2.11", "h5py>=3.12", "drms>=0.9"], have) == [
        "h5py is not installed", "drms 0.8.0 is not >=0.9",
    ]  # fmt: skip
    assert software.tested_versions()["deepspeed"] == "0.19.8"
    assert software.python(place(Path("/"))).level == "OK"


def test_another_version_than_tested_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "tested_versions", lambda: {"numpy": "1.99", "torch": "9"})
    found = software.packages(place(Path("/")))
    assert found.level == "WARN"
    assert "tested: 1.99" in found.seen


def test_filters_of_shards_work_and_a_broken_library_is_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = software.hdf5(place(tmp_path))
    assert found.level == "OK", found.seen
    assert "Fletcher32 notices" in found.seen
    (tmp_path / "hdf5plugin.py").write_text("raise OSError('no such plugin')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = software.hdf5(place(tmp_path))
    assert (found.level, found.fix) == ("MISS", software.PLUGINS)
    assert "no such plugin" in found.seen
    (tmp_path / "faiss.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)\n")
    found = software.faiss(place(tmp_path))
    assert found.level == "MISS"
    assert "signal 4" in found.seen


def test_an_interface_needs_an_address() -> None:
    assert "127.0.0.1" in (network.addresses("lo") or [])
    assert network.addresses("ib7") is None
    assert network.judge("ib0", ["10.0.0.1"], [], False).level == "OK"
    assert network.judge("ib0", [], ["lo"], False).level == "MISS"
    found = network.judge("ib0", None, ["lo", "eth0"], True)
    assert found.level == "WARN"  # a login node need not have it
    assert "lo, eth0" in found.fix
    asked = place(Path("/"), where="allocation", profile=Profile(interface="nosuch0"))
    assert network.interface(asked)[0].level == "MISS"


def test_variables_that_spoil(tmp_path: Path) -> None:
    env = {"RANK": "0", "PYTHONPATH": "/old", "NCCL_IB_DISABLE": "1"}
    found = environment.variables(place(tmp_path, env=env, where="allocation"))
    assert [one.level for one in found] == ["MISS", "WARN", "WARN", "WARN", "WARN"]
    said = " ".join(one.seen for one in found)
    for words in ("half-set", "PYTHONPATH=/old", "OMP_NUM_THREADS", "NCCL_IB_DISABLE=1",
                  "SUNPIPE_ROOT"):  # fmt: skip
        assert words in said
    good = {"OMP_NUM_THREADS": "8", "SUNPIPE_ROOT": "/scratch/x"}
    assert environment.variables(place(tmp_path, env=good, where="allocation"))[0].level == "OK"


def test_weights_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    asked = place(tmp_path, config=load_config(None, [f"ssl.weights={path}"]))
    assert "No such file" in environment.weights(asked)[0].seen
    save_file({"a": np.zeros(100, np.float32)}, path)
    assert environment.weights(asked)[0].level == "OK"
    path.write_bytes(path.read_bytes()[:-40])
    assert "cut short" in environment.weights(asked)[0].seen
    for content in (b"", b"PK\x03\x04" + b"x" * 100, (2).to_bytes(8, "little") + b"[]",
                    (10**15).to_bytes(8, "little") + b"{}"):  # fmt: skip
        path.write_bytes(content)
        assert environment.weights(asked)[0].level == "MISS", content
    assert environment.weights(place(tmp_path)) == []


def test_what_a_profile_names(tmp_path: Path) -> None:
    good, bad = tmp_path / "setup.sh", tmp_path / "bad.sh"
    good.write_text("export A=1\n")
    bad.write_text("if then\n")

    def level(check: Any, **of_profile: Any) -> list[str]:
        return [one.level for one in check(place(tmp_path, profile=Profile(**of_profile)))]

    assert level(set_up.setup, setup=str(good)) == ["OK"]
    assert level(set_up.setup, setup=str(bad)) == level(set_up.setup, setup="/no/file") == ["MISS"]
    assert "MISS" in level(set_up.container, container="/no/image.sif")
    assert level(set_up.modules, modules=("no-such-module",)) == ["MISS"]
    assert level(set_up.other_python, python=sys.executable) == ["OK"]
    assert level(set_up.other_python, python="/no/python") == ["MISS"]
    for check in (set_up.setup, set_up.container, set_up.modules, set_up.other_python):
        assert level(check) == []


def node(state: str, reason: str = "") -> Node:
    return Node("n1", "n1", "n1", state, state, ("main",), 64, 0, 0, 0, 1000, reason)


def test_nodes_that_can_take_a_job() -> None:
    assert slurm.judge_nodes([node("idle"), node("down", "x")], "slurm 24").level == "OK"
    found = slurm.judge_nodes([node("drained", "disk is dead")], "slurm 24")
    assert found.level == "MISS"
    assert "disk is dead" in found.seen


def test_each_different_demand_is_asked_once() -> None:
    found = slurm.distinct(Profile())
    assert list(found.values()) == [list(slurm.STAGES)]
    assert slurm.limits(Profile()) is None
    short = slurm.limits(Profile(default=Resources(), signal_s=2000))
    assert short is not None
    assert short.level == "WARN"
    said = slurm.why_not("sbatch: error: Batch job submission failed: Invalid qos\n")
    assert said == "Batch job submission failed: Invalid qos"


def test_what_nodes_tell() -> None:
    request = {"token": "/x", "interface": "ib0", "scratch": "/tmp/s"}
    good = {"node": "n1", "time": 101.0, "token": "w", "addresses": ["10.0.0.1"],
            "scratch_fault": "", "scratch_free": 2**40}  # fmt: skip
    found = nodes.judge([good, {**good, "node": "n2"}], "w", 100.0, 102.0, request)
    assert {one.level for one in found} == {"OK"}
    assert "1,024 GiB free" in found[-1].seen
    bad = {"node": "n2", "time": 200.0, "token_fault": "No such file or directory",
           "addresses": None, "scratch_fault": "Read-only file system"}  # fmt: skip
    found = nodes.judge([good, bad], "w", 100.0, 102.0, request)
    assert [one.level for one in found] == ["MISS", "WARN", "MISS", "MISS"]
    assert all("n2" in one.seen for one in found)
    assert "n2 by 98 s" in found[1].seen
    assert nodes.clock_bound(90.0, 100.0, 102.0) == 10.0
    assert nodes.clock_bound(101.0, 100.0, 102.0) == 0.0


def test_bus_bandwidth() -> None:
    """nccl-tests, doc/PERFORMANCE.md: algorithm bandwidth times 2 (n - 1) / n."""
    assert bus_bandwidth(10**9, 1.0, 2) == pytest.approx(1.0)
    assert bus_bandwidth(10**9, 0.5, 8) == pytest.approx(2 * 2 * 7 / 8)
    assert bus_bandwidth(10**9, 1.0, 1) == 0.0
    with pytest.raises(ValueError, match="takes time"):
        bus_bandwidth(1, 0.0, 2)
    assert (repeats(1e-6), repeats(0.5), repeats(60.0)) == (20, 6, 3)


def test_links_are_judged_by_sums_and_speed() -> None:
    size = {"bytes": 64 * 2**20, "seconds": 0.1, "bus_gb_s": 0.6}
    result = {"backend": "gloo", "world": 2, "hosts": ["n1", "n2"], "clock_spread_s": 0.001,
              "sums_right": True, "assumed_gb_s": None, "sizes": [size]}  # fmt: skip
    assert [one.level for one in links.judge(result)] == ["OK", "OK"]
    slow = {**result, "sizes": [{**size, "bus_gb_s": 0.1}], "clock_spread_s": 60.0}
    assert [one.level for one in links.judge(slow)] == ["WARN", "WARN"]
    assert links.judge({**result, "sums_right": False})[0].level == "MISS"
    less = links.judge({**result, "assumed_gb_s": 12.5})[0]
    assert (less.level, "reckons with 12.5 GB/s" in less.seen) == ("WARN", True)
    assert links.judge({**result, "assumed_gb_s": 1.0})[0].level == "OK"


def test_the_plan_and_the_doctor_reckon_with_the_same_network() -> None:
    assert assumed("nccl", ["n1", "n2"]) == 12.5
    assert assumed("nccl", ["n1", "n1"]) == 200.0
    assert assumed("gloo", ["n1", "n2"]) is None


def test_lines_are_wrapped_and_coloured_on_a_terminal_only() -> None:
    found = [Finding("torch", "MISS", "word " * 40, "pip install torch"), Finding("x", "OK", "s")]
    plain = lines(found, 0, False)
    assert len(plain) == 3
    assert plain[0].startswith("MISS  torch  word")
    assert plain[1].strip() == "fix: pip install torch"
    wrapped = lines(found, 80, True)
    assert all(len(line) <= 80 for line in wrapped[1:])
    assert wrapped[0].startswith("\033[1;31mMISS\033[0m")


def test_findings_are_json() -> None:
    row = Finding("a", "WARN", "seen", "fix", 1.23456).as_json()
    assert json.loads(json.dumps(row)) == {"name": "a", "level": "WARN", "seen": "seen",
                                           "fix": "fix", "seconds": 1.235}  # fmt: skip
