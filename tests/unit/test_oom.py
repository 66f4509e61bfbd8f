"""A GPU without enough memory: what to set, the cheapest first, and nothing that is set."""

from __future__ import annotations

import torch

from sunpipe.train.oom import explain_oom
from sunpipe.train_settings import ComputeSettings, TrainSettings, ZeroSettings

ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")


def test_what_is_not_set_yet_is_named() -> None:
    said = str(explain_oom(ERROR, TrainSettings()))
    assert "2.50 GiB more" in said
    assert "precision=bf16 or train.compute.checkpoint=block or train.compute.accumulate=2" in said
    assert "\n" not in said


def test_what_is_set_is_not_named_again() -> None:
    compute = ComputeSettings(precision="bf16", checkpoint="block", accumulate=4)
    settings = TrainSettings(compute=compute, zero=ZeroSettings(stage=1, offload=False))
    said = str(explain_oom(torch.OutOfMemoryError("no size"), settings))
    assert "accumulate=8 or train.compute.checkpoint=conv or train.zero.offload=true" in said
    assert "bf16" not in said
    assert "checkpoint=block" not in said
