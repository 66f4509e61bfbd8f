"""When a job starts again: after a loss, while it makes progress, never after a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sunpipe import requeue, stop
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


@pytest.mark.parametrize("code", [EXIT_LOST, 134, 135, 137, 138, 139])
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
        assert requeue.after_loss(EXIT_LOST, []) == ""
        notes = json.loads((root / "requeues/7.json").read_text())
        assert notes == {"schema": 1, "reached": "00000-a/kimg-2", "count": count}
    said = requeue.after_loss(EXIT_LOST, [])
    assert said.startswith("a rank was lost (exit code 76); 3 restarts at checkpoint")
    assert "restart 3 of 3" in capsys.readouterr().err


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
