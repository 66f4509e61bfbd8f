"""``sunpipe train --dry-run`` proposes what the GPU that is there can do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sunpipe.config import load_config
from sunpipe.train.ledger import ledger
from sunpipe.train.plan import plan_training
from tests.conftest import REPO


@pytest.mark.parametrize(("major", "bf16"), [(7, False), (9, True)])
def test_bf16_is_proposed_where_the_gpu_has_units_for_it(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch, major: int, bf16: bool
) -> None:
    cfg = load_config(REPO / "configs/tiny.toml", ["train.batch=64", "train.compute.bf16_from=4"])
    found = ledger(32, 3, cfg.train, 1, "cuda")
    memory = round((found.states + 0.8 * found.highest.total) / 0.92)
    gpu = SimpleNamespace(name="a GPU", major=major, minor=0, total_memory=memory)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr("sunpipe.train.advice.explain", lambda *asked: [])  # takes its time
    here = plan_training(cfg)
    assert here["memory_of_the_device"] == memory
    assert here["suggested"]
    assert ("train.compute.precision = bf16" in here["suggested"]) is bf16
    elsewhere = plan_training(cfg, gpu_memory_gib=memory / 2**30)  # of a type that nobody named
    assert "train.compute.precision = bf16" in elsewhere["suggested"]
