"""When a job starts again: after a loss, while it makes progress, never after a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from sunpipe import requeue
from sunpipe.errors import UsageError
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


def test_nothing_happens_outside_slurm(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for key in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(key, raising=False)
    assert requeue.after_loss(137, []) == ""
    assert not (root / "requeues").exists()
