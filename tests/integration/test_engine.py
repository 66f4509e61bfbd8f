"""DeepSpeed with two networks and gradient penalties equals plain PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.ranks import run_ranks

# stage, offload, passes per step, frozen parameters
CASES = [
    (0, False, 1, 0), (0, False, 2, 3), (1, False, 1, 0), (1, False, 2, 3), (1, True, 1, 0),
    (1, True, 2, 0), (2, False, 1, 0), (2, False, 2, 0), (2, True, 1, 3), (2, True, 2, 0),
]  # fmt: skip


def check(*jobs: tuple[int, list[list[Any]]]) -> list[list[dict[str, Any]]]:
    """Run cases of tests/engine_check.py, each job on its number of ranks; what rank 0 found."""
    asked = [{"world": world, "argv": [json.dumps(cases)]} for world, cases in jobs]
    ended = run_ranks("tests.engine_check", *asked)
    assert [[rank[0] for rank in job] for job in ended] == [[0] * world for world, _ in jobs], ended
    return [[json.loads(line) for line in job[0][1].splitlines()] for job in ended]


def test_engine_equals_plain_pytorch() -> None:
    cases = [["equal", *case] for case in CASES]
    alone, shared = check((1, cases), (2, cases))
    for number, result in enumerate(alone + shared):
        world, (stage, _, passes, _) = 1 + number // len(CASES), CASES[number % len(CASES)]
        assert result["moved"] > 1e-2
        assert result["frozen"] is True
        # what a checkpoint holds: Adam's moments, named per parameter, whatever the partitions
        assert result["restored"] is True
        # stage 2 sums over ranks after every pass, plain PyTorch once: another order of addends,
        # which Adam's first steps enlarge, because they divide by the size of a gradient
        rounding = 2e-5 if (stage, passes, world) == (2, 2, 2) else 0.0
        assert result["worst"] <= rounding
        assert result["moments"] <= rounding


def test_state_continues_at_other_ranks_and_stages(tmp_path: Path) -> None:
    """Row 34 of the fault matrix: the same weights as one rank that never stopped."""
    straight, changed = tmp_path / "straight", tmp_path / "changed"
    straight.mkdir()
    changed.mkdir()
    *_, last = check(
        (1, [["resume", 0, False, 0, 12, str(straight)]]),
        (1, [["resume", 0, False, 0, 3, str(changed)]]),
        (2, [["resume", 2, True, 3, 6, str(changed)]]),
        (4, [["resume", 1, False, 6, 9, str(changed)]]),
        (1, [["resume", 2, False, 9, 12, str(changed)]]),
    )
    assert last[0]["step"] == 12
    for file in ("weights", "adam"):
        one, other = (load_file(folder / f"{file}.safetensors") for folder in (straight, changed))
        assert one.keys() == other.keys()
        for key in one:
            torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-7)


STAGES = [(0, False), (1, False), (1, True), (2, False), (2, True)]
SKIPS = [[stage, offload, fault] for fault in ("loss", "gradient") for stage, offload in STAGES]


def test_what_is_not_finite_is_left_out_on_all_ranks() -> None:
    """Row 18: weights never hold NaN, and what is left out leaves no trace."""
    (found,) = check((2, [["skip", *case] for case in SKIPS]))
    for (_, _, fault), result in zip(SKIPS, found, strict=True):
        assert result["finite"] is True
        assert result["skipped"] == [0, 1 if fault == "loss" else 2, 0]
        assert (result["losses"][1] == -1.0) is result["stayed"] is (fault == "gradient")
        assert result["worst"] <= 1e-6
