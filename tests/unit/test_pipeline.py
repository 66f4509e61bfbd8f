"""The stage graph, and the local pipeline with stand-in stages and with real ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpc import pipeline
from hpc.cli import pipeline as pipeline_command
from hpc.decide import Decision
from hpc.pipeline import Asked, StageFailed, parse_result, run_stages, scripts, timing_lines
from hpc.profile import Profile, Resources, StageResources
from hpc.stages import STAGES, depends_on, select
from sunpipe.errors import Stopped, SunpipeError, UsageError
from tests.conftest import REPO, Cli
from tests.unit.test_launch import EXAMPLE, TINY, header


def test_the_order_respects_the_needs() -> None:
    names = list(STAGES)
    for name, stage in STAGES.items():
        for need in stage.needs:
            assert names.index(need) < names.index(name)


def test_every_stage_is_a_command_of_the_same_name() -> None:
    from sunpipe.cli import commands

    assert {stage.command[0] for stage in STAGES.values()} == set(STAGES)
    assert set(STAGES) <= set(commands())


def test_select() -> None:
    assert select() == list(STAGES)
    assert select("search") == ["search", "report"]
    assert select(only=["report", "fetch"]) == ["fetch", "report"]
    with pytest.raises(UsageError, match="no stage 'x'"):
        select("x")
    with pytest.raises(UsageError, match="do not go together"):
        select("ssl", ["train"])


def test_dependencies_reach_over_stages_left_out() -> None:
    assert depends_on("search", STAGES) == ["sample", "index"]
    assert depends_on("search", ["ssl", "embed", "search"]) == ["embed"]
    assert depends_on("report", ["train", "shard", "report"]) == ["train", "shard"]
    assert depends_on("fetch", STAGES) == []


def test_scripts_wait_for_each_other(root: Path) -> None:
    texts = scripts(Asked(["sample", "directions"], TINY), Profile())
    first, second = (header(text) for text in texts.values())
    assert "dependency" not in first
    assert second["dependency"] == "afterok:<sample>"


def test_scripts_are_of_what_would_be_submitted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"embed": Decision("of 3 parts 2 did not end well", (2,)), "index": Decision("x"),
            "sample": Decision(""), "search": Decision("after index")}  # fmt: skip
    monkeypatch.setattr(pipeline, "decide", lambda *_: made)
    profile = Profile(stages=StageResources(embed=Resources(array=3)))
    found = [header(text) for text in scripts(Asked(list(made), TINY), profile).values()]
    assert [each["job-name"] for each in found] == [
        "sunpipe-embed", "sunpipe-index", "sunpipe-search"]  # fmt: skip
    assert "array" not in found[0]
    assert found[2]["dependency"] == "afterok:<index>"
    assert scripts(Asked(["sample"], TINY), profile) == {}


def test_scripts_are_one_document_if_that_is_asked_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only, made = ["sample", "directions"], {}
    for as_json in (False, True):
        pipeline_command(TINY, cluster=EXAMPLE, only=only, print_script=True, json_=as_json)
        made[as_json] = capsys.readouterr().out
    texts = json.loads(made[True])["scripts"]
    assert list(texts) == only
    assert made[False] == "\n".join(texts.values())


def stand_in(results: dict[str, tuple[int, str]], seen: list[list[str]]) -> Any:
    def run_here(argv: list[str], capture: bool) -> tuple[int, str]:
        assert capture
        seen.append(argv)
        return results.get(argv[0], (0, "{}"))

    return run_here


def test_results_facts_and_timings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"report": "/r/report.html", "facts": ["a", "b", "c"]}
    seen: list[list[str]] = []
    results = {"report": (0, json.dumps(report))}
    monkeypatch.setattr(pipeline, "run_here", stand_in(results, seen))
    done = run_stages(Asked(["search", "report"], TINY, ["seed=3"]))
    assert seen == [[name, "--config", str(TINY), "--set", "seed=3", "--json"]
                    for name in ("search", "report")]  # fmt: skip
    assert done["report"] == "/r/report.html"
    assert done["facts"] == ["a", "b", "c"]
    assert done["stages"]["report"]["result"] == report
    lines = timing_lines(done)
    assert [line.split()[0] for line in lines] == ["search", "report", "all"]


def test_the_first_failure_ends_it_with_its_code(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    results = {"train": (3, ""), "ssl": (75, "")}
    monkeypatch.setattr(pipeline, "run_here", stand_in(results, seen))
    with pytest.raises(StageFailed, match="train failed") as failed:
        run_stages(Asked(["shard", "train", "sample"], TINY))
    assert failed.value.exit_code == 3
    assert [argv[0] for argv in seen] == ["shard", "train"]
    with pytest.raises(Stopped):
        run_stages(Asked(["ssl"], TINY))


@pytest.mark.parametrize("out", ["", "nan,", '{"a": 1}{'])
def test_a_stage_that_prints_no_json_is_named(out: str) -> None:
    with pytest.raises(SunpipeError, match="sample ended well but printed no JSON"):
        parse_result("sample", out)


def test_real_stages_one_after_the_other(cli: Cli, root: Path) -> None:
    only = ("--only", "fetch", "--only", "shard")
    done = cli("pipeline", "--local", "-c", TINY, *only, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result["stages"]) == ["fetch", "shard"]
    assert result["stages"]["shard"]["result"]["rows"] > 0
    assert (root / "shards/tiny/dataset.json").exists()
    plain = cli("pipeline", "--local", "-c", TINY, *only)  # finished work is skipped
    assert [line.split()[0] for line in plain.stdout.splitlines() if line] == [
        "fetch",
        "shard",
        "all",
    ]


def test_a_failing_stage_gives_its_exit_code_and_one_line(cli: Cli) -> None:
    done = cli("pipeline", "--local", "-c", TINY, "--from", "train")
    assert done.returncode == 1
    assert "the pipeline ends here: train failed (exit code 1)" in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_on_a_cluster(cli: Cli, root: Path) -> None:
    done = cli("pipeline", "-c", TINY, "--cluster", EXAMPLE, "--dry-run", "--json")
    stages = json.loads(done.stdout)["stages"]
    assert list(stages) == list(STAGES)
    assert len(stages["embed"]["commands"]) == 4
    assert stages["report"]["after"] == ["directions", "search"]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--local", "--print-script"], "no script to print"),
        (["--local", "--from", "nothing"], "no stage 'nothing'"),
        (["--local", "--set", "name=A B"], "name"),
        ([], "--cluster FILE"),
    ],
)
def test_mistakes(cli: Cli, argv: list[str], words: str) -> None:
    done = cli("pipeline", *argv, env={"SUNPIPE_CLUSTER": ""})
    assert done.returncode == 2
    assert words in done.stderr


def test_ctrl_c_reaches_the_stage_once_and_the_pipeline_continues_later(root: Path) -> None:
    """Sent to the pipeline's process only, as ``kill`` does."""
    argv = [sys.executable, "-m", "sunpipe", "pipeline", "--local", "-c", str(TINY),
            "--only", "fetch", "--only", "shard"]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(argv, env=env, cwd=REPO, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if "sunpipe shard" in line:  # the stage has printed its configuration
                break
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        err = child.stderr.read()
    assert child.returncode == 75, err
    assert "shard stopped; the same command continues" in err
    assert "Traceback" not in err
    assert not (root / "shards/tiny/dataset.json").exists()
    again = subprocess.run(argv, env=env, cwd=REPO, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (root / "shards/tiny/dataset.json").exists()
