"""`sunpipe train`: exact resume, signals, refusals, the files of a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sunpipe import checkpoint
from sunpipe.latent.generator import Generator
from sunpipe.lock import running
from sunpipe.paths import Layout
from sunpipe.run import read_stats, trained_run
from tests.conftest import REPO, Cli, free_port, run_cli, run_json

TINY = REPO / "configs/tiny.toml"
FILES = ("G", "D", "G_ema", "zero/G", "zero/D")


def newest(root: Path) -> Path:
    path = checkpoint.newest(root / "runs/00000-tiny/checkpoints", print)
    assert path is not None
    return path


def assert_same_checkpoint(ours: Path, reference: Path) -> None:
    assert ours.name == reference.name
    assert checkpoint.load_state(ours) == checkpoint.load_state(reference)
    for stem in FILES:
        left, right = (load_file(path / f"{stem}.safetensors") for path in (ours, reference))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), stem


def test_run_folder_has_its_files(tiny_run_root: Path) -> None:
    run = tiny_run_root / "runs/00000-tiny"
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "provenance.json", "stats.jsonl", "status.json", "log.txt",
                     "deepspeed.json", "plan.json", "checkpoints", "images",
                     "tensorboard"}  # fmt: skip
    rows = read_stats(run)
    assert [row["nimg"] for row in rows] == [16, 32, 48, 64]
    for key in ("kimg", "sec_per_kimg", "loss_G", "loss_D", "data_wait_s", "peak_memory_bytes",
                "time"):  # fmt: skip
        assert isinstance(rows[-1][key], float | int)
    for key in ("rank_work_s", "rank_data_wait_s", "rank_peak_memory_bytes"):
        assert len(rows[-1][key]) == 1
    assert 0 < rows[-1]["rank_work_s"][0] <= rows[-1]["tick_s"]
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "done"
    assert (status["stage"], status["nimg"], status["target"]) == ("train", 64, 64)
    assert (status["world"], status["requeues"], status["nonfinite"]) == (1, 0, 0)
    assert status["checkpoint"]["name"] == "kimg-000000.064"
    assert status["checkpoint"]["bytes"] > 100_000
    plan = json.loads((run / "plan.json").read_text())
    assert plan["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert plan["memory_bytes"] > 0
    assert (run / "images/reals.png").stat().st_size > 5000
    assert (run / "images/fakes-kimg-000000.064.png").exists()
    deepspeed = json.loads((run / "deepspeed.json").read_text())
    assert deepspeed["G"]["gradient_clipping"] == 0.0
    state = load_file(newest(tiny_run_root) / "zero/G.safetensors")
    # 8 iterations and the path-length steps among them
    assert float(state["step"]) == 10


def test_interrupted_equals_uninterrupted(tiny_copy: Path, tiny_run_root: Path) -> None:
    run_json("train", "--config", TINY, "--set", "train.kimg=0.032", root=tiny_copy)
    last = run_json("train", "--config", TINY, root=tiny_copy)
    assert last["nimg"] == 64
    assert_same_checkpoint(newest(tiny_copy), newest(tiny_run_root))
    assert [row["nimg"] for row in read_stats(Path(last["run"]))] == [16, 32, 48, 64]


LONG = ("--set", "train.kimg=0.4")  # long enough that a signal always lands inside it


@pytest.fixture(scope="module")
def long_root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted longer run."""
    folder = tmp_path_factory.mktemp("long") / "root"
    shutil.copytree(tiny_root, folder)
    run_json("train", "--config", TINY, *LONG, root=folder)
    return folder


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_at_any_time_loses_nothing(
    tiny_copy: Path, long_root: Path, number: signal.Signals
) -> None:
    said = tiny_copy / "stderr.txt"
    with open(said, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "sunpipe", "train", "--config", TINY, *LONG], cwd=REPO,
            env={**os.environ, "SUNPIPE_ROOT": str(tiny_copy), "OMP_NUM_THREADS": "1"},
            stderr=errors, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    deadline = time.monotonic() + 200
    while "kimg 0.016" not in said.read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    code = process.wait(timeout=120)
    if number == signal.SIGKILL:
        assert code == -9
    else:
        assert code == 75, said.read_text()
        assert f"stopped by {number.name}" in said.read_text().splitlines()[-1]
        assert "Traceback" not in said.read_text()
    run_json("train", "--config", TINY, *LONG, root=tiny_copy)
    assert_same_checkpoint(newest(tiny_copy), newest(long_root))


def test_two_trainings_of_one_run_at_once_are_refused(tiny_copy: Path) -> None:
    with running(Layout(tiny_copy), "train", "tiny"):
        done = run_cli("train", "--config", TINY, root=tiny_copy)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"another process is running sunpipe train for tiny (process {os.getpid()} on" in last
    assert "since 20" in last
    assert not (tiny_copy / "runs").exists()


def test_a_finished_run_says_so_at_once(tiny_run_root: Path) -> None:
    again = run_json("train", "--config", TINY, root=tiny_run_root)
    assert again["state"] == "done"
    assert again["nimg"] == 64


def test_a_checkpoint_of_another_configuration_is_refused(
    tiny_run_root: Path, root: Path, cli: Cli
) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    done = cli("train", "--config", TINY, "--set", "train.model.w_dim=8")
    assert done.returncode == 1
    assert "another train.model.w_dim" in done.stderr.splitlines()[-1]
    assert "--new" in done.stderr.splitlines()[-1]


def test_a_checkpoint_of_another_run_is_refused_by_name(
    tiny_run_root: Path, root: Path, cli: Cli
) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    smaller = ("--set", "train.model.w_dim=8", "--set", "name=other", "--set", "train.kimg=0.016")
    run_json("train", "--config", TINY, *smaller, root=root)
    theirs = checkpoint.newest(root / "runs/00001-other/checkpoints", print)
    assert theirs is not None
    shutil.copytree(theirs, root / "runs/00000-tiny/checkpoints/kimg-000000.080")
    for command in (("train", "--set", "train.kimg=0.096"), ("sample", "--set", "sample.count=20")):
        done = cli(*command, "--config", TINY)
        assert done.returncode == 1
        assert "made with another train.model.w_dim" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_a_failed_start_hides_no_older_run(tiny_run_root: Path, root: Path) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    (root / "runs/00001-tiny/checkpoints").mkdir(parents=True)
    shutil.copy(root / "runs/00000-tiny/config.json", root / "runs/00001-tiny")
    found = trained_run(Layout(root), "tiny")
    assert found == root / "runs/00000-tiny"


def test_a_size_that_is_no_power_of_two_is_refused_before_a_run_exists(
    tiny_copy: Path, cli: Cli
) -> None:
    other = ("--set", "dataset=odd", "--set", "shard.tile=96", "--set", "shard.reduce=2")
    run_json("shard", "--config", TINY, *other, root=tiny_copy)
    done = cli("train", "--config", TINY, "--set", "dataset=odd")
    assert done.returncode == 2
    assert "48 x 48 pixels" in done.stderr.splitlines()[-1]
    assert not (tiny_copy / "runs").exists()


def test_a_torn_checkpoint_is_passed_over(tiny_run_root: Path, root: Path) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    file = newest(root) / "D.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    done = run_cli("train", "--config", TINY, root=root)
    assert done.returncode == 0, done.stderr
    assert "passed over: D.safetensors was altered or cut short" in done.stderr
    assert_same_checkpoint(newest(root), newest(tiny_run_root))


@pytest.mark.parametrize(
    ("override", "code", "words"),
    [
        ("train.batch=0", 2, "train.batch"),
        ("dataset=nothing", 1, "run sunpipe shard first"),
        ("train.zero.stage=3", 2, "train.zero.stage"),
        ("train.diffaugment=['color']", 2, "train.diffaugment"),
    ],
)
def test_bad_requests(tiny_copy: Path, cli: Cli, override: str, code: int, words: str) -> None:
    done = cli("train", "--config", TINY, "--set", override)
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tiny_copy / "runs").exists()


def test_less_than_what_is_done_reports_what_is_done(tiny_run_root: Path, root: Path) -> None:
    shutil.copytree(tiny_run_root, root, dirs_exist_ok=True)
    run_json("train", "--config", TINY, "--set", "train.kimg=0.032", root=root)
    assert json.loads((root / "runs/00000-tiny/status.json").read_text())["nimg"] == 64


def test_dry_run_writes_nothing(tiny_copy: Path) -> None:
    plan = run_json("train", "--config", TINY, "--dry-run", root=tiny_copy)
    assert plan["images"] > 0
    assert plan["parameters"]["G"] > 1000
    assert plan["continues"] is None
    assert not (tiny_copy / "runs").exists()


def test_two_ranks_share_one_run(tiny_copy: Path) -> None:
    """Two ranks by the torchrun variables train the same run; half-set variables are refused."""
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common = {**os.environ, "SUNPIPE_ROOT": str(tiny_copy), "OMP_NUM_THREADS": "1", **meeting}
    command = [sys.executable, "-m", "sunpipe", "train", "--config", str(TINY), "--json"]
    half = subprocess.run(command, env={**common, "RANK": "0"}, cwd=REPO, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert half.returncode == 2
    assert "LOCAL_RANK missing" in half.stderr.splitlines()[-1]
    ranks = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                         cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]  # fmt: skip
    outputs = [rank.communicate(timeout=200) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    assert json.loads(outputs[0][0])["nimg"] == 64
    assert outputs[1][0] == ""
    assert [path.name for path in (tiny_copy / "runs").iterdir()] == ["00000-tiny"]
    # the optimiser state of two ranks fits one: continue alone
    alone = run_json("train", "--config", TINY, "--set", "train.kimg=0.08", root=tiny_copy)
    assert alone["nimg"] == 80


def test_the_generator_speaks_gauss(tiny_run_root: Path) -> None:
    generator = Generator.load(tiny_run_root / "runs/00000-tiny", device="cpu")
    z = generator.sample_z(5, seed=3)
    assert torch.equal(generator.sample_z(2, seed=3, start=3), z[3:])
    w = generator.map(z)
    fields = generator.fields(w)
    assert fields.shape == (5, 3, generator.resolution, generator.resolution)
    assert torch.equal(fields, generator.fields(w))
    assert generator.channels == ["Br", "Bt", "Bp"]
    assert generator.pixel_cm == pytest.approx(4 * 3.644e7, rel=1e-3)  # 364.4 km, reduced by 4
    torch.testing.assert_close(generator.map(z, psi=0.0), generator.w_avg.expand(5, -1))
