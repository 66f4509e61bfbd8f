"""The self-test passes what is right, and finds what has failed in silence before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ranks import run_ranks

GOOD: list[dict[str, Any]] = [
    {"stage": 0},
    {"stage": 1, "offload": True},
    {"stage": 2, "accumulate": 2, "loss": "relativistic_pair", "r2_gamma": 5.0},
    {"stage": 1, "accumulate": 2, "loss": "relativistic_average", "r1_interval": 1,
     "pl_interval": 1},
    {"stage": 2, "offload": True, "loss": "hinge", "pl_weight": 0.0},
]  # fmt: skip
BAD: list[dict[str, Any]] = [
    {"stage": 1, "offload": True, "fault": "clip"},
    {"stage": 2, "fault": "error"},
    {"stage": 3},
    {"stage": 1, "fault": "memory"},
]


@pytest.fixture(scope="module")
def answers() -> dict[int, list[dict[str, Any]]]:
    """What one and two ranks find for all cases."""
    argv = [json.dumps(GOOD + BAD)]
    ended = run_ranks("tests.selftest_check", *({"world": w, "argv": argv} for w in (1, 2)))
    assert [[rank[0] for rank in job] for job in ended] == [[0], [0, 0]], ended
    return {len(job): [json.loads(line) for line in job[0][1].splitlines()] for job in ended}


@pytest.mark.parametrize("world", [1, 2])
def test_what_is_right_passes(answers: dict[int, list[dict[str, Any]]], world: int) -> None:
    for answer in answers[world][: len(GOOD)]:
        assert answer["said"] == ""
        assert 0.0 <= answer["found"] <= (0.0 if world == 1 else 5e-6)


@pytest.mark.parametrize("world", [1, 2])
def test_what_is_wrong_is_named(answers: dict[int, list[dict[str, Any]]], world: int) -> None:
    clip, error, third, memory = (answer["said"] for answer in answers[world][len(GOOD) :])
    assert clip.startswith("self-test of DeepSpeed: stage 1 with offload: differs from plain")
    assert clip.endswith("more than 1e-05; set train.zero.stage=0")
    # among several ranks nothing else can be tried after an error
    rank, tried = (" on rank 0", "try") if world > 1 else ("", "set")
    assert error == (f"self-test of DeepSpeed: stage 2{rank}: RuntimeError: bucket code is at"
                     f" fault; {tried} train.zero.stage=1")  # fmt: skip
    assert third.startswith("train.zero.stage = 3 is not offered")
    assert memory.startswith("CUDA out of memory")  # explained elsewhere, no fault of DeepSpeed


def test_the_random_state_is_left_as_it_was(answers: dict[int, list[dict[str, Any]]]) -> None:
    assert all(answer["random"] for found in answers.values() for answer in found)


def test_a_rank_that_fails_alone_says_why_and_the_others_do_not_wait() -> None:
    (ended,) = run_ranks("tests.selftest_check", {"world": 2, "argv": ["alone"]})
    assert [rank[0] for rank in ended] == [1, 1]
    assert max(rank[3] for rank in ended) < 20
    why = ("self-test of DeepSpeed: stage 1 on rank 1: RuntimeError: one kernel is"
           " missing; try train.zero.stage=0")  # fmt: skip
    assert ended[1][2].strip() == f"sunpipe: {why}"
    assert ended[0][2].startswith(f"sunpipe: rank 1 failed ({why})")
