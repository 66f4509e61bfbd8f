"""Ranks join a process group, leave it without waiting, and hear of a hung one in time."""

from __future__ import annotations

import json

from tests.ranks import run_ranks


def test_a_group_is_left_and_joined_again() -> None:
    jobs = run_ranks("tests.group_check", *({"world": w, "argv": []} for w in (1, 2)))
    for world, job in enumerate(jobs, 1):
        assert [rank[0] for rank in job] == [0] * world, job
        for _, out, said, _ in job:
            answer = json.loads(out)
            assert answer["found"] == [[(world - 1) / 2, True, False]] * 2
            assert "destroy_process_group" not in said
            # agreements give up first, and name who is lost; NCCL would end without a word
            assert answer["made"] == [["nccl", 90.0], ["gloo", 30.0]][:world]
