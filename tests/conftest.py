"""Shared fixtures, and the rule that CI may skip nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them, and their children, ignore ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parent.parent
REQUIRE_ALL = os.environ.get("SUNPIPE_TEST_REQUIRE_ALL") == "1"

# Programs that a test may need, and the command that installs each on Debian.
INSTALL = {
    "slurmctld": "apt-get install slurmctld slurmd slurm-client munge slurmdbd mariadb-server",
    "mpiexec": "pip install mpich",
    "chromium": "apt-get install chromium",
    "shellcheck": "apt-get install shellcheck",
    "modulecmd": "apt-get install environment-modules",
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "prometheus-node-exporter": "apt-get install prometheus-node-exporter",
}


def find_program(name: str) -> str | None:
    """A program on PATH or beside this Python."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def need(name: str) -> str:
    """Path of a program; skips the test, with the command that installs it, when missing."""
    found = find_program(name)
    if found is None:
        pytest.skip(f"{name} is not installed; install it with: {INSTALL[name]}")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but SUNPIPE_TEST_REQUIRE_ALL=1: {call.excinfo}"
    return report


REAL_FILES = REPO.parent / "shared" / "data"  # too many for the repository


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--remote-data", action="store_true", help="run tests that talk to JSOC")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What shares a fixture stays in one process: a file, and all that uses the one Slurm."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/") else nodeid.split("::")[0]

    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "slurm" not in item.keywords)  # the longest group first
    left_out = set() if config.getoption("--remote-data") else {"remote_data"}
    if not Path("/dev/nvidia0").exists():
        left_out.add("gpu")
    if not REAL_FILES.is_dir():
        left_out.add("real_files")
    if left_out:
        kept = [item for item in items if not left_out & set(item.keywords)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Cli = Callable[..., subprocess.CompletedProcess[str]]


def run_cli(
    *args: str | Path, root: Path, env: dict[str, str] | None = None, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m sunpipe ARGS`` with its data root at `root`."""
    command = [sys.executable, "-m", "sunpipe", *map(str, args)]
    full = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.run(
        command, capture_output=True, text=True, env=full, cwd=REPO, timeout=timeout, check=False
    )


def run_json(*args: str | Path, root: Path, env: dict[str, str] | None = None) -> Any:
    """Run a command with ``--json``, demand success, parse its stdout."""
    done = run_cli(*args, "--json", root=root, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data root, also for code called in this process."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setenv("SUNPIPE_ROOT", str(folder))
    return folder


@pytest.fixture
def cli(root: Path) -> Cli:
    """Run ``sunpipe`` in the empty data root of this test."""

    def call(*args: str | Path, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        return run_cli(*args, root=root, **kwargs)

    return call


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the sample archive and the tiny dataset. Do not write to it."""
    folder = tmp_path_factory.mktemp("tiny") / "root"
    for stage in ("fetch", "shard"):
        run_json(stage, "--config", REPO / "configs/tiny.toml", root=folder)
    return folder


@pytest.fixture
def tiny_copy(tiny_root: Path, root: Path) -> Path:
    """A writable copy of `tiny_root`, as the current data root."""
    shutil.copytree(tiny_root, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="session")
def tiny_run_root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the tiny dataset and a finished tiny StyleGAN2 run. Do not write to it."""
    folder = tmp_path_factory.mktemp("tiny-run") / "root"
    shutil.copytree(tiny_root, folder)
    run_json("train", "--config", REPO / "configs/tiny.toml", root=folder)
    return folder
