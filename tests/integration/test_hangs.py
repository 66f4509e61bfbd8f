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
                                   {"world": 2, "argv": [str(tmp_path), str(HANG_S), "60",
                                                       "10"]})  # fmt: skip
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


def test_a_rank_that_hangs_in_its_first_step(tmp_path: Path) -> None:
    watched, alone = tmp_path / "watched", tmp_path / "alone"
    jobs = []
    for folder, hang_s in ((watched, 1.0), (alone, 0.0)):
        folder.mkdir()
        jobs.append({"world": 2, "argv": [str(folder), str(hang_s), "4", "0"]})
    by_watch, by_exchange = run_ranks("tests.hang_check", *jobs)
    for folder, ranks in ((watched, by_watch), (alone, by_exchange)):
        assert [rank[0] for rank in ranks] == [EXIT_LOST] * 2
        assert ranks[1][2] == ""
        (file,) = folder.glob("hang-*.txt")
        assert str(file) in ranks[0][2]
        assert " in sleep_in_a_step\n" in file.read_text().split("===== ")[1]
        assert read_json(folder / "status.json")["reason"] in ranks[0][2]
    # the clock may run for 6 s, longer than timeout_s; without one the exchange fails after 4
    assert "rank 1 has not gone on for " in by_watch[0][2]
    assert "(setting up; 6 s are allowed)" in by_watch[0][2]
    assert "exchange failed" not in by_watch[0][2]
    assert by_exchange[0][2].startswith("sunpipe: an exchange failed on rank 0 (")
    assert "): rank 1 has not gone on for " in by_exchange[0][2]
