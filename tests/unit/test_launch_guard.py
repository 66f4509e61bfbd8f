"""Before anything is queued: what does not fit and what is queued already is refused."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpc import guard, pipeline
from hpc.argv import accept_extra
from hpc.cli import launch
from hpc.cli import pipeline as pipeline_command
from hpc.guard import check_fit, check_inputs, check_root, in_queue, lacking, refuse_second
from hpc.pipeline import Asked, submit_stages
from hpc.profile import Profile, Resources, StageResources, load_profile
from hpc.slurm_query import NoSlurm
from hpc.stages import STAGES
from hpc.submitted import FILE, last_logs, remember, submissions
from sunpipe.config import load_config
from sunpipe.errors import DataError, UsageError
from sunpipe.made import made_by
from sunpipe.paths import Layout
from tests.conftest import REPO, Cli

TINY = REPO / "configs/tiny.toml"
SHORT = 'signal_s = 600\n[default]\ntime = "00:10:00"\n'  # ends as soon as it is warned


def waiting(monkeypatch: pytest.MonkeyPatch, **stages: str) -> None:
    """Stand-in for squeue: stage and number of each job."""
    jobs = [SimpleNamespace(array=number, stage=stage) for stage, number in stages.items()]
    monkeypatch.setattr(guard, "slurm_jobs", lambda ended: jobs)


def test_what_was_submitted_is_remembered(root: Path) -> None:
    remember(root, "train", "a", "7", [["train", "-c", "x"]])
    remember(root, "embed", "a", "8", [["embed", "--part", "1/2"], ["embed", "--part", "2/2"]])
    remember(root, "embed", "a", "9", [["embed", "--part", "2/2"]])
    with open(root / FILE, "a") as handle:
        handle.write('{"torn')
    remember(root, "ssl", "a", "10", [["ssl"]])  # what follows a torn line is whole
    assert [row["job"] for row in submissions(root)] == ["7", "8", "9", "10"]
    assert submissions(root)[0]["tasks"] == [{"part": None, "log": "7_0_log.out"}]
    logs = last_logs(root, "embed", "a")
    assert logs == {"1/2": root / "8_0_0_log.out", "2/2": root / "9_0_log.out"}
    assert last_logs(root, "embed", "b") == {}


def test_a_stage_in_the_queue_is_not_submitted_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(monkeypatch, train="7", embed="99", report="8")
    assert in_queue(root, "a") == {}
    for stage, job, name in (("train", "7", "a"), ("ssl", "8", "a"), ("embed", "99", "b")):
        remember(root, stage, name, job, [[stage]])
    # 8 is somebody else's now, a report: numbers start again with a new cluster
    queued = in_queue(root, "a")
    assert queued == {"train": ["7"]}
    refuse_second(queued, "a", ["ssl", "embed"])  # one has ended, one is another experiment's
    with pytest.raises(DataError, match=r"train \(job 7\) of a in the queue already"):
        refuse_second(queued, "a", ["ssl", "train"])


def test_a_machine_without_slurm_has_nothing_in_the_queue(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(ended: bool) -> None:
        raise NoSlurm("no squeue")

    monkeypatch.setattr(guard, "slurm_jobs", absent)
    remember(root, "train", "a", "7", [["train"]])
    assert in_queue(root, "a") == {}


def test_what_is_being_made_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "slurm").mkdir()
    remember(root / "slurm", "train", "tiny", "7", [["train"]])
    waiting(monkeypatch, train="7")
    embedded = made_by("embed", load_config(TINY), Layout(root))[0]
    embedded.parent.mkdir(parents=True)
    embedded.touch()
    asked = Asked(["sample", "directions", "index"], TINY)
    plan = pipeline.plan_stages(asked, Profile())
    assert "sample      run, after job 7" in pipeline.plan_lines(plan)
    seen: dict[str, list[str]] = {}

    def submit(stage: str, *rest: object, **_: object) -> str:
        seen[stage] = list(rest[-1])  # type: ignore[call-overload]
        return f"{len(seen)}0"

    monkeypatch.setattr(pipeline, "submit", submit)
    submit_stages(asked, Profile())
    assert seen == {"sample": ["7"], "directions": ["7", "10"], "index": []}
    submit_stages(replace(asked, force=True), Profile())
    assert seen["sample"] == []
    said = "sample reads what train makes, which is not there (with --force the queue is not looked"
    assert said in capsys.readouterr().err
    forced = pipeline.plan_stages(replace(asked, force=True), Profile())["stages"]["sample"]
    assert (forced["after_jobs"], forced["lacks"]) == ([], ["train"])  # as it was submitted
    texts = pipeline.scripts(replace(asked, force=True), Profile())
    assert "--dependency" not in texts["sample"]
    assert said in capsys.readouterr().err
    monkeypatch.setattr("hpc.launch.submit", submit)
    profile = root / "cluster.toml"
    profile.write_text("")
    from hpc.cli import launch

    launch("sample", config=TINY, cluster=profile)
    assert seen["sample"] == ["7"]
    assert "sample: after job 7" in capsys.readouterr().err
    launch("sample", config=TINY, cluster=profile, force=True, dry_run=True)
    assert said in capsys.readouterr().err


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


def test_a_stage_without_its_input_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg, layout = load_config(TINY), Layout(root)
    with pytest.raises(DataError, match="train reads what shard makes, which is neither there"):
        check_inputs("train", cfg, layout, {}, force=False)
    check_inputs("train", cfg, layout, {"shard": ["7"]}, force=False)  # it is being made
    check_inputs("train", cfg, layout, {}, force=True)
    assert "train reads what shard makes" in capsys.readouterr().err
    check_inputs("report", cfg, layout, {}, force=False)
    made_by("shard", cfg, layout)[0].parent.mkdir(parents=True)
    made_by("shard", cfg, layout)[0].touch()
    check_inputs("train", cfg, layout, {}, force=False)


def test_a_start_that_failed_hides_no_older_checkpoint(root: Path) -> None:
    cfg, layout = load_config(TINY), Layout(root)
    for stage, run in (("sample", "runs/00000-tiny"), ("embed", "runs/00002-tiny-ssl")):
        (need,) = STAGES[stage].needs
        (root / run / "checkpoints/kimg-000001.000").mkdir(parents=True)
        assert lacking(stage, cfg, layout, ()) == [need]  # not complete
        (root / run / "checkpoints/kimg-000001.000/COMPLETE").touch()
        (root / run.replace("/0000", "/0001") / "checkpoints").mkdir(parents=True)
        assert lacking(stage, cfg, layout, ()) == []


def test_a_pipeline_whose_input_nobody_makes_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "submit", lambda *_, **__: pytest.fail("submitted"))
    asked = Asked(["embed", "index"], TINY)
    with pytest.raises(DataError, match=r"^embed reads what ssl makes, .* nothing was queued"):
        submit_stages(asked, Profile())
    plan = pipeline.plan_stages(asked, Profile())
    assert (plan["refused"], plan["stages"]["index"]["lacks"]) == (True, [])
    line = "refused: it reads what ssl makes, which is not there"
    assert [words.strip() for words in pipeline.plan_lines(plan) if "refused" in words] == [line]
    assert pipeline.plan_stages(replace(asked, force=True), Profile())["refused"] is False
    assert list(pipeline.scripts(asked, Profile())) == ["embed", "index"]
    assert "embed reads what ssl makes" in capsys.readouterr().err


@pytest.mark.parametrize("local", [True, False])
def test_a_data_root_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "cluster.toml").touch()
    cluster = None if local else tmp_path / "cluster.toml"
    monkeypatch.setenv("SUNPIPE_ROOT", str(tmp_path / "file/root"))
    words = r"the data root .*/file/root cannot be made \(Not a directory\); .* SUNPIPE_ROOT"
    with pytest.raises(DataError, match=words):
        launch("report", config=TINY, cluster=cluster, local=local)
    with pytest.raises(DataError, match=words):
        pipeline_command(TINY, cluster=cluster, local=local)
    pipeline_command(TINY, only=["report"], local=True, dry_run=True)


def test_what_is_refused_leaves_no_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.toml").touch()
    cluster, typo = tmp_path / "cluster.toml", tmp_path / "typo"
    monkeypatch.setenv("SUNPIPE_ROOT", str(typo / "deep"))
    monkeypatch.setattr("hpc.launch.shutil.which", lambda _: None)
    waiting(monkeypatch)
    with pytest.raises(DataError, match="train reads what shard makes"):
        launch("train", config=TINY, cluster=cluster)
    with pytest.raises(DataError, match="train reads what shard makes"):
        pipeline_command(TINY, from_="train", cluster=cluster)
    with pytest.raises(DataError, match="sbatch not found"):
        launch("fetch", config=TINY, cluster=cluster)
    assert not typo.exists()
    monkeypatch.setattr("hpc.local.run_here", lambda *_, **__: (0, ""))
    launch("report", config=TINY, local=True)
    assert (typo / "deep").is_dir()


def test_a_data_root_below_a_folder_of_others_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpc.guard.os.access", lambda path, _: path != tmp_path)  # root may all
    with pytest.raises(DataError, match=rf"cannot be made \({tmp_path} is not writable\)"):
        check_root(tmp_path / "deep/root")
    check_root(tmp_path)  # it is there: a stage that only reads may run


def test_a_dry_run_tells_what_a_submission_would_be_refused_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.toml"
    short.write_text(SHORT)
    launch("train", config=TINY, cluster=short, dry_run=True)
    assert "train: " in capsys.readouterr().err
    pipeline_command(TINY, only=["train"], cluster=short, dry_run=True)
    assert "train: " in capsys.readouterr().err


def test_a_warning_is_told_and_does_not_stand_in_the_way(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = StageResources(ssl=Resources(gpus_per_node=4))
    check_fit(load_config(TINY), Profile(stages=stages), ["ssl"], force=False)
    assert "ssl: 3 of 4 GPUs a node would be idle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "extra", "words"),
    [
        ("train", ["configs/tiny.tom"], "unexpected extra argument"),
        ("train", ["--nonsense"], "train: No such option"),
        ("train", ["--new", "--set=name=other"], "give --set to launch itself"),
        ("sample", ["-c", "other.toml"], "give --config to launch itself"),
        ("index", ["--part", "2/4"], "give --part to launch itself"),
        ("directions", ["--parts", "3"], "directions fit: No such option"),
    ],
)
def test_what_stands_behind_the_stage_is_looked_at_here(
    stage: str, extra: list[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        accept_extra(stage, extra)


def test_options_of_the_stage_are_handed_on() -> None:
    assert accept_extra("train", ["--new"])["new"] is True
    assert accept_extra("directions", []).get("new") is None


def test_the_configuration_may_stand_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hpc.cli import launch
    from hpc.cli import pipeline as command

    profile = root / "cluster.toml"
    profile.write_text("")
    launch("train", [str(TINY), "--new"], cluster=profile, dry_run=True, json_=True)
    (argv,) = json.loads(capsys.readouterr().out)["commands"]
    assert argv == ["sunpipe", "train", "--config", str(TINY), "--new"]
    command(TINY, only=["train"], local=True, dry_run=True, json_=True)
    plan = json.loads(capsys.readouterr().out)["stages"]
    assert plan["train"]["commands"] == [["sunpipe", "train", "--config", str(TINY)]]
    for call in (lambda: launch("train", [str(TINY)], config=TINY), lambda: command(TINY, TINY)):
        with pytest.raises(UsageError, match="named twice"):
            call()


@pytest.mark.parametrize("command", [("launch", "report"), ("pipeline", "--only", "report")])
def test_both_ways_of_submission_ask(cli: Cli, root: Path, command: tuple[str, ...]) -> None:
    (root / "cluster.toml").write_text(SHORT)
    done = cli(*command, "-c", TINY, "--cluster", root / "cluster.toml")
    assert done.returncode == 1
    assert "sunpipe: report: time = 00:10:00 is not longer than signal_s = 600" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (root / "slurm").exists()


def test_the_pipeline_submits_what_is_left_and_depends_on_that_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stand-ins for sbatch, receipts and artefacts: which commands, after which jobs."""
    from hpc.decide import Decision

    made = {"sample": Decision(""), "embed": Decision("of 3 parts 2 did not end well", (2,)),
            "index": Decision("after embed"), "search": Decision("after index")}  # fmt: skip
    monkeypatch.setattr(pipeline, "decide", lambda *_: made)
    seen = {}

    def submit(stage: str, commands: list[list[str]], *rest: object, **_: object) -> str:
        seen[stage] = ([words[-1] for words in commands], rest[-1])
        return f"{len(seen)}0"

    monkeypatch.setattr(pipeline, "submit", submit)
    monkeypatch.setattr(guard, "is_made", lambda *_: True)
    waiting(monkeypatch)
    stages = StageResources(embed=Resources(array=3), sample=Resources(array=2))
    asked = Asked(list(made), TINY, ["report.title=$(x) y"], cluster=Path("my c.toml"))
    done = submit_stages(asked, Profile(stages=stages))
    plan = pipeline.plan_stages(asked, Profile(stages=stages))
    said = capsys.readouterr().err
    assert "\n".join(pipeline.plan_lines(plan)) in said  # the words of a dry run
    alone = re.search(r"^embed 2/3: alone: (.*)$", said, re.MULTILINE)
    assert alone is not None
    assert shlex.split(alone[1]) == ["sunpipe", "launch", "embed", "-c", str(TINY), "--set",
                                     "report.title=$(x) y", "--cluster", "my c.toml",
                                     "--part", "2/3"]  # fmt: skip
    assert done == {"jobs": {"embed": "10", "index": "20", "search": "30"}, "done": ["sample"]}
    assert json.loads(json.dumps(seen)) == {
        "embed": [["2/3"], []], "index": [["report.title=$(x) y"], ["10"]],
        "search": [["report.title=$(x) y"], ["20"]],
    }  # fmt: skip
