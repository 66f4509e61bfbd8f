"""What a training would be: for this machine, and for GPUs that are elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from sunpipe.config import load_config
from sunpipe.errors import UsageError
from sunpipe.settings import Config
from sunpipe.train.plan import plan_training
from tests.conftest import REPO

TINY = REPO / "configs/tiny.toml"


def tiny(*changes: str) -> Config:
    return load_config(TINY, changes)


def test_a_job_is_planned_where_there_is_no_gpu(tiny_copy: Path) -> None:
    here = plan_training(tiny())
    assert here["ranks"] == 1
    there = plan_training(tiny(), ranks=4, gpu_memory_gib=80)
    assert there["ranks"] == 4
    assert there["memory"]["samples"] == here["memory"]["samples"] // 4
    assert there["memory_of_the_device"] == 80 * 2**30
    assert there["suggested"] == []
    assert "on a CPU" not in there["memory_levers"][0]
    tight = plan_training(tiny(), gpu_memory_gib=0.5 * there["memory"]["parameters"] / 2**30)
    assert tight["suggested"] is None
    assert not (tiny_copy / "runs").exists()


@pytest.mark.usefixtures("tiny_copy")
def test_what_the_training_refuses_is_refused() -> None:
    with pytest.raises(UsageError, match="does not divide over 3 ranks"):
        plan_training(tiny("train.batch=8"), ranks=3)
    with pytest.raises(UsageError, match="not offered"):
        plan_training(tiny("train.zero.stage=3"))
    with pytest.raises(UsageError, match="at least one rank, not 0"):
        plan_training(tiny(), ranks=0)
    with pytest.raises(UsageError, match="above 0 GiB, not -1"):
        plan_training(tiny(), gpu_memory_gib=-1)
