"""G and D in stripes of rows over four real ranks equal the unsplit ones, to second derivatives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import REPO, free_port

WORLD = 4
EXACT = ["2 stripes", "4 stripes", "upper half, const", "residual, skip", "orig, clamp"]
QUANTITIES = {"image", "logits", "main G", "path length", "main D", "R1"}


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    """What each rank of tests/stripes_check.py found."""
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.stripes_check"], cwd=REPO,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(WORLD),
                 "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                 "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    try:
        outputs = [rank.communicate(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * WORLD, outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def compared(found: list[dict[str, Any]], case: str) -> dict[str, float]:
    """Errors of a case, from the one rank that compared it."""
    (errors,) = [rank[case] for rank in found if case in rank]
    return errors


@pytest.mark.parametrize("case", EXACT)
def test_stripes_equal_the_unsplit_networks(found: list[dict[str, Any]], case: str) -> None:
    errors = compared(found, case)
    assert set(errors) == QUANTITIES
    assert max(errors.values()) < 1e-10, errors


def test_without_halos_nothing_is_equal(found: list[dict[str, Any]]) -> None:
    errors = compared(found, "without halos")
    assert min(errors.values()) > 1e-4, errors


def test_gradients_are_the_same_bits_on_every_rank(found: list[dict[str, Any]]) -> None:
    assert [rank["same on all"] for rank in found] == [True] * WORLD


def test_recomputed_blocks_exchange_in_the_same_order(found: list[dict[str, Any]]) -> None:
    for case in ("recomputed block", "recomputed conv, bf16"):
        assert [rank[case] for rank in found] == [True] * WORLD, case


def test_lower_precision_stays_as_precise(found: list[dict[str, Any]]) -> None:
    single = compared(found, "float32")
    assert max(single.values()) < 1e-5, single
    bf16, whole = compared(found, "bf16"), compared(found, "bf16 whole")
    for quantity in ("image", "logits", "main G", "main D"):
        assert bf16[quantity] < 1.5 * whole[quantity] + 5e-3, (bf16, whole)
    # one number multiplies all of a penalty's gradient, and rounds by chance
    assert max(bf16.values()) < 0.3, (bf16, whole)


@pytest.mark.parametrize("stripes", [2, 4])
def test_each_rank_keeps_its_share(found: list[dict[str, Any]], stripes: int) -> None:
    for memory in (rank["memory"] for rank in found):
        share = {name: memory[str(stripes)][name] / memory["whole"][name] for name in ("G", "D")}
        # low resolutions and the rows of zeros around a gradient's edges are whole
        assert all(1 / stripes <= part < 1.1 / stripes for part in share.values()), share
        assert memory[str(stripes)]["R1"] < 1.35 / stripes * memory["whole"]["R1"], memory
