"""A rank that stops stepping is named with its stack, and the run ends; a slow one is let be."""

from __future__ import annotations

import re
from pathlib import Path

from sunpipe.errors import EXIT_LOST
from sunpipe.files import read_json
from tests.ranks import run_ranks

HANG_S = 1.5


def test_a_rank_that_hangs_is_named_with_its_stack(tmp_path: Path) -> None:
    ((first, second),) = run_ranks("tests.hang_check",
                                   {"world": 2, "argv": [str(tmp_path), str(HANG_S)]})  # fmt: skip
    said = first[2].strip()
    assert [first[0], second[0]] == [EXIT_LOST, EXIT_LOST]
    assert said.startswith("sunpipe: rank 1 has not gone on for ")
    assert "in sleep_in_a_step (" in said
    assert "\n" not in said
    assert second[2] == ""  # rank 0 has said it
    (file,) = tmp_path.glob("hang-*.txt")
    assert str(file) in said
    culprit, other = file.read_text().split("===== ")[1:]
    assert culprit.startswith("rank 1 after 10 steps")
    assert " in sleep_in_a_step\n" in culprit
    assert other.startswith("rank 0 after 10 steps: any_rank (sunpipe/train/process_group.py")
    status = read_json(tmp_path / "status.json")
    assert status["state"] == "failed"
    assert status["reason"].startswith("rank 1 has not gone on for ")
    waited, allowed = map(float, re.findall(r"(\d+) s", status["reason"])[:2])
    # the slowest step before took 0.4 of hang_s, or more on a busy machine: ten times that
    assert 4 * HANG_S <= allowed <= waited < allowed + 10
    assert not list(tmp_path.glob(".tmp-*"))
