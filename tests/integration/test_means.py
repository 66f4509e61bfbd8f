"""Losses that see the samples of all ranks: real Gloo ranks equal one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO, free_port


@pytest.mark.parametrize("world", [2, 3])
def test_a_split_batch_equals_the_whole(world: int) -> None:
    port = str(free_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.means_check"],
            cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        outputs = [rank.communicate(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world, outputs
    found = json.loads(outputs[0][0].splitlines()[-1])
    for kind in ("nonsaturating", "hinge", "relativistic_average", "relativistic_pair"):
        assert found[kind] < 1e-13, kind
    assert found["second"] < 1e-13
    assert found["diversity"] < 1e-13
    assert found["local_bars"] > 1e-3  # means of a rank's own samples are another loss
    assert found["input_kept"] == 0
    assert found["ada"] == found["ada_whole"]  # to the last bit
    assert found["ada"]["count"] == 12
    assert found["ada"]["p"] > 0
