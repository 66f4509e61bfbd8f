"""The sbatch templates: short, checked by shellcheck, and true to the contracts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.stages import STAGES
from sunpipe.config import load_config
from tests.conftest import REPO, need

JOBS = sorted((REPO / "jobs").glob("[!_]*.sh"))
ENV = REPO / "jobs/_env.sh"


def commands() -> dict[str, list[str]]:
    """Job name to the words behind ``sunpipe``."""
    found = {}
    for job in JOBS:
        (line,) = re.findall(r"^srun .*?sunpipe (.*?)(?: \\)?$", job.read_text(), re.MULTILINE)
        found[job.stem] = line.split()
    return found


def test_every_stage_has_a_template() -> None:
    ran = {words[0] for words in commands().values()}
    assert ran == {*STAGES, "pipeline", "evaluate", "invert", "verify", "simulate",
                   "traverse"}  # fmt: skip


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_template(job: Path) -> None:
    text = job.read_text()
    assert text.startswith("#!/bin/bash\n")
    assert len(text.splitlines()) < 40
    assert re.search(
        r"^#SBATCH --signal=USR2@300 --requeue --open-mode=append$", text, re.MULTILINE
    )
    assert "B:USR2" not in text
    assert 'source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1\n' in text
    assert text.rstrip().endswith('"$@"')
    assert len(re.findall(r"^srun ", text, re.MULTILINE)) == 1
    assert len(re.findall(r'^srun .*"\$\{SUNPIPE_INSIDE\[@\]\}" sunpipe ', text, re.MULTILINE)) == 1
    assert os.access(job, os.X_OK)


@pytest.mark.parametrize("job", [*JOBS, ENV], ids=lambda job: job.stem)
def test_bash_can_parse_it(job: Path) -> None:
    subprocess.run(["bash", "-n", job], check=True)


def test_shellcheck() -> None:
    argv = [need("shellcheck"), "--external-sources", *JOBS, ENV]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=REPO, check=False)
    assert done.returncode == 0, done.stdout


def test_arrays_pass_their_part() -> None:
    part = '--part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}"'
    for name in ("download", "sample", "fit_directions", "embed"):
        text = (REPO / f"jobs/{name}.sh").read_text()
        assert "#SBATCH --array=1-" in text  # parts count from 1
        assert f" {part} " in text
    text = (REPO / "jobs/build_index.sh").read_text()
    assert "#SBATCH --array" not in text  # alone unless it is asked for
    assert " ${SLURM_ARRAY_TASK_ID:+" + part + "} " in text


def sourced(tmp_path: Path, **env: str) -> dict[str, str]:
    """Environment after ``_env.sh``, and the words before a command as ``INSIDE``."""
    script = (f'module() {{ echo "$@" > {tmp_path}/modules; }}; source {ENV};'
              ' export INSIDE="${SUNPIPE_INSIDE[*]}"; env -0')  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": "/usr/bin:/bin", **env}, capture_output=True,
        text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    return dict(word.split("=", 1) for word in done.stdout.split("\0") if word)


def test_environment_of_a_job(tmp_path: Path) -> None:
    env = sourced(tmp_path, SLURM_SUBMIT_DIR="/home/me/sunpipe", SLURM_CPUS_PER_TASK="8")
    assert env["PATH"].startswith("/home/me/sunpipe/.venv/bin:")
    assert env["OMP_NUM_THREADS"] == env["SRUN_CPUS_PER_TASK"] == "8"
    assert "NCCL_SOCKET_IFNAME" not in env
    assert not (tmp_path / "modules").exists()


def test_site_settings_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "site.sh").write_text("export SITE=1\n")
    env = sourced(tmp_path, SUNPIPE_MODULES="python/3.11 cuda/12.8", SUNPIPE_INTERFACE="ib0",
                  SUNPIPE_SETUP=f"{tmp_path}/site.sh", OMP_NUM_THREADS="3")  # fmt: skip
    assert (tmp_path / "modules").read_text() == "load python/3.11 cuda/12.8\n"
    assert env["NCCL_SOCKET_IFNAME"] == env["GLOO_SOCKET_IFNAME"] == "ib0"
    assert (env["SITE"], env["OMP_NUM_THREADS"]) == ("1", "3")


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ("", "sunpipe: module load nosuch cuda (SUNPIPE_MODULES) failed\n"),
        ("cd /nosuch/env 2> /dev/null", "/site.sh (SUNPIPE_SETUP) ended with exit code 1\n"),
        ("cd /nosuch/env 2> /dev/null\nexport A=1", ""),  # the last command decides
    ],
)
def test_what_a_site_sets_up_in_vain_ends_the_job(tmp_path: Path, setup: str, said: str) -> None:
    """As the templates source it, where bash ignores ``set -e``."""
    (tmp_path / "site.sh").write_text(f"{setup}\n")
    script = f"module() {{ return {int(not setup)}; }}; source {ENV} || exit 1; echo stage"
    env = {"PATH": "/usr/bin:/bin", "SUNPIPE_MODULES": "nosuch cuda",
           "SUNPIPE_SETUP": f"{tmp_path}/site.sh"}  # fmt: skip
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip
    assert done.stderr.endswith(said)
    assert (done.returncode, done.stdout) == ((1, "") if said else (0, "stage\n")), done.stderr


def test_words_that_enter_a_container(tmp_path: Path) -> None:
    assert sourced(tmp_path)["INSIDE"] == ""
    env = sourced(tmp_path, SUNPIPE_CONTAINER="/img/sun.sif", SUNPIPE_ROOT=str(tmp_path),
                  SUNPIPE_CACHE=f"{tmp_path}/cache", SLURM_JOB_GPUS="0",
                  SLURM_JOB_ID="7")  # fmt: skip
    assert env["INSIDE"] == (
        f"apptainer exec --nv --bind {tmp_path} --bind {tmp_path}/cache /img/sun.sif"
    )
    assert env["SUNPIPE_REQUEUE_FILE"] == f"{tmp_path}/.sunpipe-again-7"
    root = tmp_path / "not" / "yet"  # of the first download
    env = sourced(tmp_path, SUNPIPE_CONTAINER="/img/sun.sif", SUNPIPE_ROOT=str(root))
    assert env["INSIDE"] == f"apptainer exec --bind {root} /img/sun.sif"
    assert root.is_dir()
    env = sourced(tmp_path, SUNPIPE_CONTAINER="/img/sun.sif", HOME=str(tmp_path))
    assert env["INSIDE"] == "apptainer exec /img/sun.sif"


def test_the_folder_of_copies_is_made_on_every_node(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text(f'#!/bin/bash\necho "$*" > {tmp_path}/called\n')
    (tmp_path / "srun").chmod(0o755)
    cache = tmp_path / "cache"
    sourced(tmp_path, SUNPIPE_CONTAINER="/i.sif", SUNPIPE_CACHE=str(cache),
            SLURM_JOB_NUM_NODES="4", PATH=f"{tmp_path}:/usr/bin:/bin")  # fmt: skip
    said = f"--nodes=4 --ntasks=4 --ntasks-per-node=1 mkdir -p {cache}\n"
    assert (tmp_path / "called").read_text() == said


SCONTROL = """\
#!/bin/bash
show="JobId=7 JobState=$STATE Reason=None PreemptEligibleTime=2026-01-01T00:00:00 $TIME End=0"
if [[ "$*" == *show* ]]; then echo "$show"; else echo "$*"; fi
"""


@pytest.mark.parametrize(
    ("state", "question", "time", "said"),
    [("RUNNING", "requeue", "None", "requeue 7\n"), ("COMPLETING", "requeue", "None", ""),
     ("CANCELLED", "requeue", "None", ""), ("RUNNING", "preempted", "None", ""),
     ("RUNNING", "preempted", "2026-01-01T00:00:00", "requeue 7\n"),
     ("CANCELLED", "preempted", "2026-01-01T00:00:00", "")],
)  # fmt: skip
def test_what_a_container_cannot_ask_for_is_asked_outside(
    tmp_path: Path, state: str, question: str, time: str, said: str
) -> None:
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    answer = question == "requeue"
    inside = ("import sunpipe.stop as s; s.shutil.which = lambda _: None;"
              f" assert s.{question}() is {answer}")  # fmt: skip
    script = f"source {ENV}; {sys.executable} -c '{inside}'; exit 75"
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SUNPIPE_CONTAINER": "/i.sif", "STATE": state,
           "TIME": f"PreemptTime={time}", "SUNPIPE_ROOT": str(tmp_path), "SLURM_JOB_ID": "7",
           "PYTHONPATH": str(REPO)}  # fmt: skip
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True,
                          check=False, cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stdout) == (75, said), done.stderr
    assert not (tmp_path / ".sunpipe-again-7").exists()


def test_the_1024_configuration_is_config_f() -> None:
    config = load_config(REPO / "configs/sharp_vector_1024.toml")
    assert (config.shard.tile, config.shard.stride, config.shard.reduce) == (1024, 0, 1)
    model, train = config.train.model, config.train
    assert (model.mapping_layers, model.channel_base, model.channel_max) == (8, 32768, 512)
    assert (model.z_dim, model.w_dim, train.batch, train.lr_g, train.lr_d) == (
        512,
        512,
        32,
        0.002,
        0.002,
    )
    assert train.r1_gamma == pytest.approx(0.0002 * 1024**2 / 32, rel=1e-3)
    assert (train.pl_weight, train.pl_interval, train.r1_interval) == (2.0, 4, 16)
    assert config.fetch.source == "jsoc"
