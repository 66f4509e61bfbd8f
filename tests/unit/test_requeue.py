"""When a job starts again: after a loss, while it makes progress, never after a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc import local
from sunpipe import requeue, scontrol, stop
from sunpipe.errors import EXIT_LOST, UsageError
from tests.conftest import REPO


def test_losses_without_progress_are_counted() -> None:
    before, seen = ("", 0), []
    for _ in range(5):
        again, count = requeue.decide(137, "", before, 3)
        seen.append(again)
        before = ("", count)
    assert seen == [True, True, True, False, False]


def test_a_newer_checkpoint_starts_the_count_anew() -> None:
    assert requeue.decide(139, "00000-a/kimg-2", ("00000-a/kimg-1", 3), 3) == (True, 1)
    assert requeue.decide(139, "00000-a/kimg-1", ("00000-a/kimg-1", 3), 3) == (False, 3)


@pytest.mark.parametrize(
    "reached", ["", "00000-a/kimg-000001.000", "00000-a/kimg-000002.000", "00000-b/kimg-000009.000"]
)
def test_what_is_older_or_gone_is_no_progress(reached: str) -> None:
    """A loop over it would never end."""
    before = ("00001-a/kimg-000002.000", 2)
    assert requeue.decide(137, reached, before, 3) == (True, 3)
    assert requeue.decide(137, reached, (before[0], 3), 3) == (False, 3)
    assert requeue.decide(137, "00001-a/kimg-000010.000", before, 3) == (True, 1)


@pytest.mark.parametrize("code", [EXIT_LOST, 132, 134, 135, 136, 137, 138, 139])
def test_a_lost_rank_starts_the_job_again(code: int) -> None:
    assert requeue.decide(code, "", ("", 0), 3) == (True, 1)


@pytest.mark.parametrize("code", [0, 1, 2, 75, 130, 143])
def test_mistakes_and_requests_are_not_tried_again(code: int) -> None:
    assert requeue.decide(code, "", ("", 0), 3)[0] is False


def test_progress_is_that_of_the_run_the_arguments_name(root: Path) -> None:
    words = ["-c", str(REPO / "configs/tiny.toml"), "--new", "--set", 'name="mine"', "--json"]
    assert requeue.newest_checkpoint(words) == ""
    for name in ("mine", "other"):
        for kimg in ("kimg-000001.000", "kimg-000002.000"):
            folder = root / f"runs/00000-{name}/checkpoints/{kimg}"
            folder.mkdir(parents=True)
            if name == "other" or kimg < "kimg-000002":
                (folder / "COMPLETE").touch()
    assert requeue.newest_checkpoint(words) == "00000-mine/kimg-000001.000"
    alone = ["--cluster", "c.toml", str(REPO / "configs/tiny.toml"), *words[2:]]  # of pipeline.sh
    assert requeue.newest_checkpoint(alone) == "00000-mine/kimg-000001.000"


def test_the_maximum_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUNPIPE_MAX_REQUEUES", raising=False)
    assert requeue.most_requeues() == 3
    monkeypatch.setenv("SUNPIPE_MAX_REQUEUES", "0")
    assert requeue.most_requeues() == 0
    monkeypatch.setenv("SUNPIPE_MAX_REQUEUES", "many")
    with pytest.raises(UsageError, match="'many' is not a whole number"):
        requeue.most_requeues()


def test_the_furthest_checkpoint_is_remembered(
    monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses at the second checkpoint, at the first (the second was torn), at the second again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.delenv("SUNPIPE_MAX_REQUEUES", raising=False)
    monkeypatch.setattr(requeue, "still_wanted", lambda job: job == "7")
    monkeypatch.setattr(requeue, "requeue", lambda: True)
    for count, reached in enumerate(("00000-a/kimg-2", "00000-a/kimg-1", "00000-a/kimg-2"), 1):
        monkeypatch.setattr(requeue, "newest_checkpoint", lambda _, there=reached: there)
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(count - 1))
        assert requeue.after_loss(EXIT_LOST, []) == ""
        notes = json.loads((root / "requeues/7.json").read_text())
        assert notes == {"schema": 1, "reached": "00000-a/kimg-2", "count": count,
                         "start": count - 1}  # fmt: skip
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    said = requeue.after_loss(EXIT_LOST, [])
    assert said.startswith("a rank was lost (exit code 76); 3 restarts at checkpoint")
    assert "restart 3 of 3" in capsys.readouterr().err
    monkeypatch.delenv("SLURM_RESTART_COUNT")  # the number was given again, to another job
    assert requeue.after_loss(EXIT_LOST, []) == ""
    assert "restart 1 of 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "asked"), [(0, ""), (1, ""), (2, ""), (75, ""), (EXIT_LOST, "76 -c x.toml --new"),
                        (128, ""), (137, "137 -c x.toml --new")]
)  # fmt: skip
def test_the_job_asks_after_a_loss_and_keeps_its_code(
    tmp_path: Path, code: int, asked: str
) -> None:
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nshift 2\necho "$@"\nexit 3\n')
    python.chmod(0o755)
    job = f"""source {REPO}/jobs/_env.sh
        trap 'again_after_loss $? -c x.toml "$@"' EXIT
        (exit {code})"""
    env = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(["bash", "-c", job, "job", "--new"], env=env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (code, asked, "")


def test_a_pipeline_in_one_job_starts_again_too(tmp_path: Path) -> None:
    (tmp_path / "jobs").symlink_to(REPO / "jobs")
    bin_ = tmp_path / ".venv/bin"
    bin_.mkdir(parents=True)
    (bin_ / "srun").write_text("#!/bin/sh\nexit 137\n")
    (bin_ / "python").write_text('#!/bin/sh\necho "$@"\n')
    for program in bin_.iterdir():
        program.chmod(0o755)
    env = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run(["bash", REPO / "jobs/pipeline.sh", "-c", "x.toml"], env=env,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (137, "-m sunpipe.requeue 137 -c x.toml\n")


def test_the_signal_that_ended_a_stage_shows_in_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(local.sys, "executable", str(killed))
    assert local.run_here(["train", "-c", "x"]) == (137, "")
    assert capsys.readouterr().err == "sunpipe: train was ended by SIGKILL\n"


def test_other_signals_are_named_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    said = "exit code 143 is no loss of a rank, not started again"
    assert requeue.after_loss(143, []) == said
    assert requeue.after_loss(1, []) == ""


def scontrol_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, show: str, other: str = "exit 0"
) -> Path:
    """A ``scontrol`` that notes its words and runs shell words; returns the notes."""
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$*" >> {folder}/called\n'
                       f'case "$*" in *show*) {show} ;; *) {other} ;; esac\n')  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    for module in (stop, requeue):
        monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(scontrol, "PAUSE_S", 0.15)
    return folder / "called"


GONE = "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"


@pytest.mark.parametrize("show", [GONE, "exec sleep 5"])
def test_a_rank_lost_while_the_controller_is_away_is_told_and_asked_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], show: str
) -> None:
    """Slurm itself refuses jobs that were cancelled."""
    monkeypatch.setattr(scontrol, "ANSWER_S", 0.2)
    called = scontrol_says(root, monkeypatch, show)
    assert requeue.after_loss(137, []) == ""
    asked = called.read_text().splitlines()
    assert asked[-1] == "requeue 7"
    assert asked[0] == "--oneliner show job 7"
    first, second = capsys.readouterr().err.splitlines()
    why = "Unable to contact slurm controller" if show == GONE else "no answer within 0.2 s"
    assert first.startswith("sunpipe: scontrol --oneliner show job 7: ")
    assert first.endswith(why)
    assert "restart 1 of 3 before the first checkpoint" in second


def test_the_controller_is_asked_again_while_it_is_away(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    back = f"test -e {root}/back && exit 0; touch {root}/back; {GONE}"
    called = scontrol_says(root, monkeypatch, "echo x", back)
    assert stop.requeue()
    assert called.read_text() == "requeue 7\nrequeue 7\n"
    assert capsys.readouterr().err == ""
    scontrol_says(root, monkeypatch, GONE, GONE)
    assert not stop.requeue()
    assert not stop.preempted()  # asked in a signal handler: once, and no exception
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_preemption_is_seen_whatever_form_of_times_its_user_likes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "%b %d")
    shown = 'case $SLURM_TIME_FORMAT in standard) at=2026-01-01T00:00:00 ;; *) at="Jan 01" ;; esac'
    scontrol_says(root, monkeypatch, f'{shown}; echo "JobId=7 JobState=RUNNING PreemptTime=$at"')
    assert stop.preempted()


def test_a_stage_that_never_gets_further_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Work that is longer than its ``--time`` and keeps nothing would start for ever."""
    monkeypatch.setattr(stop, "requeue", lambda: True)
    monkeypatch.setattr(stop, "_LOADED", time.monotonic() - 3000)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SUNPIPE_MAX_REQUEUES", "2")

    def lives(stage: str, done: list[int], start: int = 0) -> list[bool]:
        again = []
        for number, count in enumerate(done, start):
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(number) if number else "")
            again.append(stop.requeue_if_progress(stage, count))
        return again

    assert lives("search", [0] * 4) == [True, True, False, False]
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith("sunpipe: search was stopped as often as SUNPIPE_MAX_REQUEUES allows")
    # another job of the same number, and one that gets on, falls back, and is then stuck
    assert lives("train", [8, 16, 24, 32, 40, 48]) == [True] * 6
    assert lives("train", [48, 40, 48], 6) == [True, True, False]
    assert lives("train", [56], 9) == [True]
    assert lives("sample", [0, 0], 10) == [True, True]  # the next stage of a pipeline
    for start in range(4):  # outside its loops, too
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(start))
        assert stop.requeue_or_end("report") is (start < 2)
    monkeypatch.setenv("SUNPIPE_MAX_REQUEUES", "many")
    assert stop.requeue_if_progress("search", 0)
    assert "restarts are not counted: SUNPIPE_MAX_REQUEUES='many'" in capsys.readouterr().err


def test_nothing_happens_outside_slurm(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for key in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(key, raising=False)
    assert requeue.after_loss(137, []) == ""
    assert not (root / "requeues").exists()


def test_the_run_of_an_encoder_is_another_one(root: Path) -> None:
    words = ["-c", str(REPO / "configs/tiny.toml"), "--set", 'name="mine"']
    for name in ("mine", "mine-ssl"):
        folder = root / f"runs/00000-{name}/checkpoints/kimg-000001.000"
        folder.mkdir(parents=True)
        (folder / "COMPLETE").touch()
    assert requeue.newest_checkpoint(words) == "00000-mine/kimg-000001.000"
    alone = ["--cluster", "c.toml", str(REPO / "configs/tiny.toml"), *words[2:]]  # of pipeline.sh
    assert requeue.newest_checkpoint(alone) == "00000-mine/kimg-000001.000"
    assert requeue.newest_checkpoint(["ssl", *words]) == "00000-mine-ssl/kimg-000001.000"


EARLY = """
import os, signal, sys

class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGUSR2)

sys.meta_path.insert(0, Early())
"""


@pytest.mark.parametrize("module", ["sunpipe.cli", "preprocess.cli", "preprocess.fetch"])
def test_a_warning_while_modules_are_loaded_is_not_lost(tmp_path: Path, module: str) -> None:
    """A time limit of a minute: Slurm's warning comes as the job starts."""
    (tmp_path / "sitecustomize.py").write_text(EARLY.format(module=module))
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}",
           "SUNPIPE_ROOT": str(tmp_path / "root"), "SLURM_JOB_ID": "12"}  # fmt: skip
    argv = [sys.executable, "-m", "sunpipe", "fetch", "-c", str(REPO / "configs/tiny.toml")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 75, done.stderr
    assert "interrupted; run the same command again to continue" in done.stderr
    assert (tmp_path / "asked").read_text() == "requeue 12\n"


def test_a_job_that_is_always_stopped_as_it_starts_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No storm: Slurm warns up to a minute early, a limit of a minute is always too short."""
    asked: list[int] = []
    monkeypatch.setattr(stop, "requeue", lambda: asked.append(1) or True)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setattr(stop, "_LOADED", time.monotonic())
    monkeypatch.setenv("SUNPIPE_MAX_REQUEUES", "2")

    def life(start: int) -> bool:
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(start) if start else "")
        return stop.requeue_or_end()

    assert [life(start) for start in range(4)] == [True, True, False, False]
    assert "too short for its --signal; the job ends here" in capsys.readouterr().err
    assert [life(start) for start in (7, 8, 10, 11)] == [True] * 4  # start 9 got to its work
    monkeypatch.setattr(stop, "_LOADED", time.monotonic() - 61)
    assert life(12)  # and this one, too
    (root / "requeues/12-early.json").write_text("{")
    monkeypatch.setattr(stop, "_LOADED", time.monotonic())
    assert life(13)
    assert "starts are not counted" in capsys.readouterr().err


def test_arguments_of_a_launched_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    monkeypatch.setattr(requeue, "after_loss", lambda code, words: seen.append((code, words)))
    file = root / "arguments.json"
    for words in (["train", "--set", "name=a"], ["ssl", "-c", "$(x)"]):
        file.write_text(json.dumps(words))
        monkeypatch.setattr("sys.argv", ["requeue", "--arguments", str(file), "137"])
        requeue.main()
    assert seen == [(137, ["--set", "name=a"]), (137, ["ssl", "-c", "$(x)"])]
    for text in ('["report"]', "{", "3"):
        file.write_text(text)
        requeue.main()
    assert len(seen) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("sunpipe: not started again: ") for line in said] == [True] * 3
