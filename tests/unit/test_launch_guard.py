"""Before anything is queued: what does not fit and what is queued already is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpc import guard, pipeline
from hpc.guard import check_fit, in_queue, refuse_second
from hpc.pipeline import Asked, submit_stages
from hpc.profile import Profile, Resources, StageResources, load_profile
from hpc.submitted import FILE, last_logs, remember, submissions
from sunpipe.config import load_config
from sunpipe.errors import DataError
from tests.conftest import REPO, Cli

TINY = REPO / "configs/tiny.toml"
SHORT = 'signal_s = 600\n[default]\ntime = "00:10:00"\n'  # ends as soon as it is warned


def waiting(monkeypatch: pytest.MonkeyPatch, *arrays: str) -> None:
    jobs = [SimpleNamespace(array=array) for array in arrays]
    monkeypatch.setattr(guard, "slurm_jobs", lambda ended: jobs)


def test_what_was_submitted_is_remembered(root: Path) -> None:
    remember(root, "train", "a", "7", [["train", "-c", "x"]])
    remember(root, "embed", "a", "8", [["embed", "--part", "1/2"], ["embed", "--part", "2/2"]])
    remember(root, "embed", "a", "9", [["embed", "--part", "2/2"]])
    with open(root / FILE, "a") as handle:
        handle.write('{"torn')
    assert [row["job"] for row in submissions(root)] == ["7", "8", "9"]
    assert submissions(root)[0]["tasks"] == [{"part": None, "log": "7_0_log.out"}]
    logs = last_logs(root, "embed", "a")
    assert logs == {"1/2": root / "8_0_0_log.out", "2/2": root / "9_0_log.out"}
    assert last_logs(root, "embed", "b") == {}


def test_a_stage_in_the_queue_is_not_submitted_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(monkeypatch, "7", "99")
    assert in_queue(root, "a") == {}
    for stage, job, name in (("train", "7", "a"), ("ssl", "8", "a"), ("embed", "99", "b")):
        remember(root, stage, name, job, [[stage]])
    assert in_queue(root, "a") == {"train": "7"}
    refuse_second(root, "a", ["ssl", "embed"])  # one has ended, one is another experiment's
    with pytest.raises(DataError, match=r"train \(job 7\) of a in the queue already"):
        refuse_second(root, "a", ["ssl", "train"])


def test_what_cannot_run_is_refused_and_may_be_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.toml").write_text(SHORT)
    profile, cfg = load_profile(tmp_path / "cluster.toml"), load_config(TINY)
    with pytest.raises(DataError, match=r"^report: time = 00:10:00 .* \(--force queues it anyway"):
        check_fit(cfg, profile, ["report"], force=False)
    assert capsys.readouterr().err == ""
    check_fit(cfg, profile, ["report"], force=True)
    assert "report: time = 00:10:00" in capsys.readouterr().err


def test_a_warning_is_told_and_does_not_stand_in_the_way(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = StageResources(ssl=Resources(gpus_per_node=4))
    check_fit(load_config(TINY), Profile(stages=stages), ["ssl"], force=False)
    assert "ssl: 3 of 4 GPUs a node would be idle" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("launch", "report"), ("pipeline", "--only", "report")])
def test_both_ways_of_submission_ask(cli: Cli, root: Path, command: tuple[str, ...]) -> None:
    (root / "cluster.toml").write_text(SHORT)
    done = cli(*command, "-c", TINY, "--cluster", root / "cluster.toml")
    assert done.returncode == 1
    assert "sunpipe: report: time = 00:10:00 is not longer than signal_s = 600" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "slurm").exists()


def test_the_pipeline_submits_what_is_left_and_depends_on_that_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for sbatch and receipts: which commands, after which jobs."""
    from hpc.decide import Decision

    made = {"sample": Decision(""), "embed": Decision("of 3 parts 2 did not end well", (2,)),
            "index": Decision("after embed"), "search": Decision("after index")}  # fmt: skip
    monkeypatch.setattr(pipeline, "decide", lambda *_: made)
    seen = {}

    def submit(stage: str, commands: list[list[str]], *rest: object) -> str:
        seen[stage] = ([words[-1] for words in commands], rest[-1])
        return f"{len(seen)}0"

    monkeypatch.setattr(pipeline, "submit", submit)
    waiting(monkeypatch)
    stages = StageResources(embed=Resources(array=3), sample=Resources(array=2))
    done = submit_stages(Asked(list(made), TINY), Profile(stages=stages))
    assert done == {"jobs": {"embed": "10", "index": "20", "search": "30"}, "done": ["sample"]}
    assert json.loads(json.dumps(seen)) == {
        "embed": [["2/3"], []], "index": [[str(TINY)], ["10"]], "search": [[str(TINY)], ["20"]]
    }  # fmt: skip
