"""The stages that use a GPU, on one. Left out where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sunpipe.run import read_stats
from tests.conftest import REPO, run_json

TINY = REPO / "configs/tiny.toml"


@pytest.mark.gpu
def test_the_stages_run_on_a_gpu(tiny_copy: Path) -> None:
    for stage in (["train"], ["sample"], ["directions", "fit"], ["ssl"], ["embed"],
                  ["index", "build"], ["search"]):  # fmt: skip
        run_json(*stage, "--config", TINY, root=tiny_copy)
    run = tiny_copy / "runs/00000-tiny"
    assert "cuda" in (run / "log.txt").read_text()
    assert [row["nimg"] for row in read_stats(run)] == [16, 32, 48, 64]
    found = json.loads((tiny_copy / "latents/tiny/directions.json").read_text())
    assert found["schema"] == 1
