"""A job that loses a rank starts again, but not for ever; a mistake does not start it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sunpipe.errors import EXIT_LOST
from tests.slurm.conftest import SMALL, Slurm

pytestmark = pytest.mark.slurm
JOB = ("jobs/train_stylegan_1024.sh", "-c", "configs/tiny.toml")

# What the interpreter of every rank runs first: ranks die before they have done anything.
CRASH = """\
import os
if "SLURM_SRUN_COMM_HOST" in os.environ:
    {death}
"""


@pytest.mark.parametrize(
    ("death", "words"), [("os.kill(os.getpid(), 9)", "was killed (exit code 137)"),
                         (f"os._exit({EXIT_LOST})", "was lost (exit code 76)")]
)  # fmt: skip
def test_a_crash_at_the_start_stops_after_the_maximum(
    slurm: Slurm, tmp_path: Path, death: str, words: str
) -> None:
    """Row 10 of the fault matrix: no storm of requeues."""
    (tmp_path / "sitecustomize.py").write_text(CRASH.format(death=death))
    (tmp_path / "setup.sh").write_text(f"export PYTHONPATH={tmp_path}\n")
    given = f"--export=ALL,SUNPIPE_SETUP={tmp_path}/setup.sh,SUNPIPE_MAX_REQUEUES=1"
    job = slurm.sbatch(*SMALL, given, *JOB, root=tmp_path)
    assert slurm.wait(job) == {job: "FAILED"}
    assert slurm.show(job)["Restarts"] == "1"
    log = (tmp_path / "log.txt").read_text()
    assert log.count(f"a rank {words}; Slurm starts the job again, restart 1 of 1 before the") == 1
    assert "1 restarts before the first checkpoint did not help, the job ends here" in log
    notes = json.loads((tmp_path / f"requeues/{job}.json").read_text())
    assert notes == {"schema": 1, "reached": "", "count": 1}


def test_a_mistake_is_not_tried_again(slurm: Slurm, tiny_root: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_root / "shards", tmp_path / "shards")
    job = slurm.sbatch(*SMALL, *JOB, "--set", "train.batch=7", root=tmp_path)
    assert slurm.wait(job) == {job: "FAILED"}
    assert slurm.show(job)["Restarts"] == "0"
    assert not (tmp_path / "requeues").exists()
    log = (tmp_path / "log.txt").read_text()
    assert "train.batch=7" in log
    assert "Traceback" not in log


def test_a_requeued_job_with_new_continues_the_run_it_began(
    slurm: Slurm, tiny_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_root / "shards", tmp_path / "shards")
    log = tmp_path / "log.txt"
    (tmp_path / "runs/00000-tiny").mkdir(parents=True)  # of before: --new leaves it alone
    short = ("--set", "train.kimg=100", "--set", "train.checkpoint_kimg=0.016")
    job = slurm.sbatch(*SMALL, *JOB, "--new", *short, root=tmp_path)
    folder = tmp_path / "runs/00001-tiny"
    slurm.until("a checkpoint", lambda: any(folder.glob("checkpoints/*/COMPLETE")))
    slurm.preempt(job)
    slurm.until("its second life", lambda: "resumed from kimg-" in log.read_text())
    slurm.run("scancel", job)
    slurm.wait(job)
    assert "--new is ignored, 00001-tiny is continued" in log.read_text()
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "00000-tiny", folder.name,
    ]  # fmt: skip
