"""The tiny pipeline through a real Slurm, with one stage preempted on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sunpipe.files import sha256
from tests.conftest import REPO
from tests.slurm.conftest import Slurm

pytestmark = pytest.mark.slurm
TINY = REPO / "configs/tiny.toml"


@pytest.fixture(scope="module")
def piped(
    slurm: Slurm, profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A data root after ``sunpipe pipeline`` through Slurm, and its job ids."""
    root = tmp_path_factory.mktemp("piped") / "root"
    done = slurm.sunpipe("pipeline", "-c", TINY, "--cluster", profile, "--json", root=root)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    log = root / f"slurm/{jobs['ssl']}_0_log.out"
    slurm.until("ssl starts", lambda: log.exists() and "sunpipe ssl {" in log.read_text())
    slurm.preempt(jobs["ssl"])
    states = slurm.wait(*jobs.values())
    logs = {path.name: path.read_text() for path in (root / "slurm").glob("*.out")}
    assert set(states.values()) == {"COMPLETED"}, (states, logs)
    return root, jobs


def test_every_stage_left_its_artefact(piped: tuple[Path, dict[str, str]]) -> None:
    root, _ = piped
    for artefact in ("latents/tiny/samples.h5", "latents/tiny/directions.json",
                     "embeddings/tiny/embedding.json", "index/tiny/vectors.faiss",
                     "searches/tiny", "reports/tiny/report.html"):  # fmt: skip
        assert (root / artefact).exists(), artefact
    stages = [
        json.loads(line)["stage"] for line in (root / "stages.jsonl").read_text().splitlines()
    ]
    assert stages.count("directions") == stages.count("embed") == 2


def test_shards_by_mpi_on_two_nodes_equal_those_of_one_process(
    piped: tuple[Path, dict[str, str]], tiny_root: Path
) -> None:
    here, there = (sorted((root / "shards/tiny").glob("*.h5")) for root in (piped[0], tiny_root))
    assert [path.name for path in here] == [path.name for path in there]
    assert [sha256(path) for path in here] == [sha256(path) for path in there]
    assert (piped[0] / f"slurm/{piped[1]['shard']}_1_log.out").exists()  # a second rank ran


def test_training_ran_on_two_nodes(piped: tuple[Path, dict[str, str]], slurm: Slurm) -> None:
    root, jobs = piped
    state = json.loads(
        (root / "runs/00000-tiny/checkpoints/kimg-000000.064/state.json").read_text()
    )
    assert state["world"] == 2
    assert slurm.show(jobs["train"])["NumNodes"] == "2"


def test_the_preempted_stage_continued_in_the_same_job(
    piped: tuple[Path, dict[str, str]], slurm: Slurm
) -> None:
    root, jobs = piped
    assert slurm.show(jobs["ssl"])["Restarts"] == "1"
    assert len(list((root / "runs").glob("*-tiny-ssl"))) == 1


def test_a_task_that_fails_alone_fails_alone(
    piped: tuple[Path, dict[str, str]], slurm: Slurm, profile: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for part in ("shards", "runs"):
        shutil.copytree(piped[0] / part, root / part)
    damaged = root / "shards/tiny/shard-00001.h5"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    only = ("--only", "embed", "--only", "index")
    argv = ("pipeline", "-c", TINY, "--cluster", profile, *only, "--json")
    jobs = json.loads(slurm.sunpipe(*argv, root=root).stdout)["jobs"]
    states = slurm.wait(*jobs.values())
    assert states == {f"{jobs['embed']}_0": "COMPLETED", f"{jobs['embed']}_1": "FAILED",
                      jobs["index"]: "CANCELLED"}  # fmt: skip
    log = (root / f"slurm/{jobs['embed']}_1_0_log.out").read_text()
    assert "shard-00001.h5" in log
    assert "Traceback" not in log
    assert not (root / "index").exists()

    damaged.write_bytes(content)  # mended: only the failed part is run again
    planned = slurm.sunpipe(*argv, "--dry-run", root=root)
    stages = json.loads(planned.stdout)["stages"]
    assert [words[-1] for words in stages["embed"]["commands"]] == ["2/2"]
    assert stages["index"]["after"] == ["embed"]
    again = slurm.sunpipe(*argv, root=root)
    assert again.returncode == 0, again.stderr
    assert "embed       run: of 2 parts 2 did not end well" in again.stderr
    failed = f"{root}/slurm/{jobs['embed']}_1_0_log.out"
    assert f"embed 2/2: its last log is {failed}; alone: sunpipe launch embed -c" in again.stderr
    jobs = json.loads(again.stdout)["jobs"]
    assert set(slurm.wait(*jobs.values()).values()) == {"COMPLETED"}
    ran = [json.loads(line)["stage"] for line in (root / "stages.jsonl").read_text().splitlines()]
    assert ran == ["embed", "embed", "index"]
    assert (root / "index/tiny/index.json").exists()
    done = slurm.sunpipe(*argv, root=root)
    assert json.loads(done.stdout) == {"jobs": {}, "done": ["embed", "index"]}


def test_what_the_jobs_have_done_is_known_without_starting_any(
    piped: tuple[Path, dict[str, str]], slurm: Slurm, profile: Path
) -> None:
    argv = ("pipeline", "-c", TINY, "--cluster", profile, "--dry-run")
    plan = slurm.sunpipe(*argv, root=piped[0]).stdout.splitlines()
    assert {line.split()[1] for line in plan} == {"done"}
    plan = slurm.sunpipe(*argv, "--set", "directions.bootstrap=5", root=piped[0]).stdout
    assert "directions  run as 2 tasks: directions.bootstrap changed\n" in plan
    assert "report      run, after directions\n" in plan
    assert plan.count(" run") == 2
