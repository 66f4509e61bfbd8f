"""``jobs/*.sh`` through a real sbatch: requeue, exact continuation, hostile values."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from hpc import daemon
from sunpipe.files import sha256
from tests.conftest import REPO
from tests.slurm.conftest import SMALL, Slurm

pytestmark = pytest.mark.slurm
TINY = REPO / "configs/tiny.toml"
HOSTILE = [
    "$(touch {marker})",
    "`touch {marker}`",
    "; touch {marker} ;",
    "' ; touch {marker} ; '",
    '" && touch {marker} && "',
    "| tee {marker}",
    "> {marker}",
    "%j %x $HOME ${{IFS}} *",
    "#SBATCH --output={marker}",
]


def test_preempted_training_ends_with_the_weights_of_an_uninterrupted_one(
    slurm: Slurm, tiny_root: Path, tmp_path: Path
) -> None:
    argv = ("jobs/train_stylegan_1024.sh", "-c", "configs/tiny.toml", "--set", "train.kimg=0.096",
            "--set", "train.tick_kimg=0.008", "--set", "train.checkpoint_kimg=0.096")  # fmt: skip
    roots = tmp_path / "straight", tmp_path / "preempted"
    for root in roots:
        shutil.copytree(tiny_root / "shards", root / "shards")
    straight, preempted = (slurm.sbatch(*SMALL, *argv, root=root) for root in roots)
    run = roots[1] / "runs/00000-tiny"
    slurm.until("first tick", lambda: (run / "stats.jsonl").exists())
    slurm.preempt(preempted)
    assert slurm.wait(straight, preempted) == {straight: "COMPLETED", preempted: "COMPLETED"}

    assert slurm.show(preempted)["Restarts"] == "1"
    assert slurm.show(straight)["Restarts"] == "0"
    steps = sorted(path.name for path in (run / "checkpoints").glob("kimg-*"))
    assert steps[-1] == "kimg-000000.096"
    assert len(steps) == 2  # the one of the preemption, and the last
    rows = [json.loads(line)["nimg"] for line in (run / "stats.jsonl").read_text().splitlines()]
    assert rows == list(range(8, 104, 8))  # every image once
    final = [root / "runs/00000-tiny/checkpoints" / steps[-1] for root in roots]
    assert json.loads((final[1] / "state.json").read_text())["world"] == 2
    for name in ("G", "G_ema", "D", "zero/G", "zero/D"):
        assert sha256(final[0] / f"{name}.safetensors") == sha256(final[1] / f"{name}.safetensors")


def rank_process(slurm: Slurm, rank: int) -> int:
    """Process of a rank of the training that runs on this cluster."""
    for pid in daemon.leftovers(slurm.cluster.token):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"train" in words[2:4] and f"SLURM_PROCID={rank}".encode() in (
            Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ):
            return pid
    raise AssertionError(f"no rank {rank}")


def test_a_killed_rank_is_named_and_the_job_continues_by_itself(
    slurm: Slurm, tiny_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_root / "shards", tmp_path / "shards")
    job = slurm.sbatch(
        *SMALL, "jobs/train_stylegan_1024.sh", "-c", "configs/tiny.toml", "--set",
        "train.checkpoint_kimg=0.016", "--set", "train.kimg=0.4", root=tmp_path,
    )  # fmt: skip
    run = tmp_path / "runs/00000-tiny"
    slurm.until("checkpoint", lambda: (run / "checkpoints/latest").exists())
    os.kill(rank_process(slurm, 1), signal.SIGKILL)
    assert slurm.wait(job) == {job: "COMPLETED"}
    assert slurm.show(job)["Restarts"] == "1"
    assert (run / "checkpoints/kimg-000000.400/COMPLETE").exists()
    assert "resumed from kimg-" in (run / "log.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert "a rank was killed (exit code 137); Slurm starts the job again, restart 1 of 3" in log
    assert "rank 1 ended without a word" in log  # said by rank 0, which was given the time
    assert "Traceback" not in log


def test_hostile_values_reach_the_stage_as_they_are(
    slurm: Slurm, profile: Path, tmp_path: Path
) -> None:
    marker, relative = tmp_path / "marker", REPO / "hostile-marker"
    title = " ".join(HOSTILE).format(marker=marker)
    config = tmp_path / "a b; touch hostile-marker; $(touch hostile-marker) '.toml"
    config.write_text(f"extends = {json.dumps(str(TINY))}\n")
    words = ("-c", config, "--set", f"report.title={json.dumps(title)}")
    roots = tmp_path / "launch", tmp_path / "sbatch"
    done = slurm.sunpipe("launch", "report", *words, "--cluster", profile, "--json", "--",
                         "--dry-run", root=roots[0])  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_launch = json.loads(done.stdout)["job"]
    roots[1].mkdir()
    by_sbatch = slurm.sbatch("jobs/report.sh", *words, "--dry-run", root=roots[1])
    states = slurm.wait(by_launch, by_sbatch)
    logs = [(roots[0] / f"slurm/{by_launch}_0_log.out"), roots[1] / "log.txt"]
    assert set(states.values()) == {"COMPLETED"}, [log.read_text() for log in logs]
    assert not marker.exists()
    assert not relative.exists()
    for log in logs:
        (line,) = re.findall(r"^sunpipe report (.*)$", log.read_text(), re.MULTILINE)
        assert json.loads(line)["report"]["title"] == title


@pytest.mark.parametrize("value", ["a\nsrun touch X", "a\n#SBATCH --output=X", "a\rb", "a\x1b[2J"])
def test_control_characters_are_refused_before_submission(
    slurm: Slurm, profile: Path, tmp_path: Path, value: str
) -> None:
    title = f"report.title={value}"
    done = slurm.sunpipe("launch", "fetch", "-c", TINY, "--cluster", profile, "--set", title,
                         root=tmp_path)  # fmt: skip
    assert done.returncode == 2
    assert "control character" in done.stderr
    assert not (tmp_path / "slurm").exists()


def test_a_refused_job_gives_one_line_and_cancels_the_rest(slurm: Slurm, tmp_path: Path) -> None:
    profile = tmp_path / "cluster.toml"
    profile.write_text('[default]\ntime = "00:10:00"\n[stages.train]\npartition = "nowhere"\n')
    argv = ("pipeline", "-c", TINY, "--cluster", profile)
    done = slurm.sunpipe(*argv, root=tmp_path / "root")
    assert done.returncode == 1
    assert "train was not accepted: sbatch: error: invalid partition" in done.stderr
    assert "Traceback" not in done.stderr
    queue = slurm.run("squeue", "--noheader", "--states=PENDING").stdout
    assert "sunpipe-" not in queue


def test_the_printed_script_is_the_submitted_one(
    slurm: Slurm, profile: Path, tmp_path: Path
) -> None:
    argv = ("launch", "fetch", "-c", TINY, "--cluster", profile)
    printed = slurm.sunpipe(*argv, "--print-script", root=tmp_path).stdout
    job = json.loads(slurm.sunpipe(*argv, "--json", root=tmp_path).stdout)["job"]
    assert (tmp_path / f"slurm/{job}_submission.sh").read_text() == printed
    assert slurm.wait(job) == {job: "COMPLETED"}


def test_a_job_may_submit_another(slurm: Slurm, tmp_path: Path) -> None:
    """From a task of an array with a memory of its own: none of that is the new job's."""
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[default]\nmem = "300M"\n')
    line = [sys.executable, "-m", "sunpipe", "launch", "fetch", TINY, "--cluster", cluster]
    outer = slurm.sbatch(
        "--array=3", "--ntasks=2", "--mem-per-cpu=200M",
        f"--wrap={shlex.join([*map(str, line), '--json'])} > {tmp_path}/said", root=tmp_path,
    )  # fmt: skip
    assert set(slurm.wait(outer).values()) == {"COMPLETED"}
    job = json.loads((tmp_path / "said").read_text())["job"]
    assert slurm.wait(job) == {job: "COMPLETED"}
    assert (tmp_path / "archive/manifest.parquet").exists()
