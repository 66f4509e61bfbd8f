"""A job that loses a rank starts again, but not for ever; a mistake does not start it again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from sunpipe.errors import EXIT_LOST
from tests.conftest import REPO, free_port
from tests.slurm.conftest import SMALL, Slurm
from tests.slurm.test_jobs_slurm import rank_process

pytestmark = pytest.mark.slurm
TINY = REPO / "configs/tiny.toml"
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
    assert notes == {"schema": 1, "reached": "", "count": 1, "start": 0}


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


# A container as the batch script sees one: Slurm's commands and the host's PATH are not in it.
APPTAINER = """\
#!/bin/bash
echo "$*" >> "{seen}"
[[ "$1" == exec ]] || exit 3
shift
while [[ "$1" == --* ]]; do
    [[ "$1" == --bind ]] && {{ [[ -d "$2" ]] || exit 4; shift; }}
    shift
done
[[ "$1" == /img/sun.sif ]] || exit 5
shift
PATH=/nowhere exec "$@"
"""


def test_a_launched_training_in_a_container_starts_again_after_a_lost_rank(
    slurm: Slurm, tiny_root: Path, tmp_path: Path
) -> None:
    """Through ``sunpipe launch``: container, node-local scratch, requeue, bound on restarts."""
    root, scratch, seen = tmp_path / "root", tmp_path / "node disk", tmp_path / "seen"
    shutil.copytree(tiny_root / "shards", root / "shards")
    scratch.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(APPTAINER.format(seen=seen))
    (tmp_path / "bin/apptainer").chmod(0o755)
    profile = tmp_path / "cluster.toml"
    profile.write_text(
        f'container = "/img/sun.sif"\npython = "{sys.executable}"\nscratch = "$NODE_DISK"\n'
        '[default]\ntime = "00:10:00"\n[stages.train]\nnodes = 2\n'
    )
    given = {
        "PATH": f"{tmp_path}/bin:{slurm.env['PATH']}", "NODE_DISK": str(scratch),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),  # no scontrol to ask
    }  # fmt: skip
    words = ("launch", "train", "-c", TINY, "--cluster", profile, "--json", "--set",
             "train.checkpoint_kimg=0.016", "--set", "train.kimg=0.4")  # fmt: skip
    done = slurm.run("env", *(f"{key}={value}" for key, value in given.items()),
                     sys.executable, "-m", "sunpipe", *words, root=root)  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)["job"]
    run = root / "runs/00000-tiny"
    slurm.until("checkpoint", lambda: (run / "checkpoints/latest").exists())
    os.kill(rank_process(slurm, 1), signal.SIGKILL)
    logs = "\n".join(path.read_text() for path in (root / "slurm").glob("*.out"))
    assert slurm.wait(job) == {job: "COMPLETED"}, logs
    assert slurm.show(job)["Restarts"] == "1"
    assert (run / "checkpoints/kimg-000000.400/COMPLETE").exists()
    assert "resumed from kimg-" in (run / "log.txt").read_text()
    log = (root / f"slurm/{job}_0_log.out").read_text()
    assert "a rank was killed (exit code 137); Slurm starts the job again, restart 1 of 3" in log
    assert list((root / "requeues").iterdir()) == [root / f"requeues/{job}.json"]
    published = json.loads((root / "shards/tiny/dataset.json").read_text())["shards"].values()
    copies = {path.stem for path in scratch.glob("sunpipe-*/*.h5")}
    assert copies
    assert copies <= set(published)
    calls = seen.read_text().splitlines()
    assert {call.split(" /img/")[0] for call in calls} == {f"exec --bind {root} --bind {scratch}"}
    assert sum("sunpipe.requeue" in call for call in calls) == 1
