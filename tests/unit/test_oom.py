"""A GPU without enough memory: what to set, the cheapest first, and nothing that is set."""

from __future__ import annotations

import re

import pytest
import torch

from sunpipe.train.advice import changed
from sunpipe.train.begin import FREE_KEYS
from sunpipe.train.ledger import ledger
from sunpipe.train.oom import explain_oom
from sunpipe.train_settings import ComputeSettings, ModelSettings, TrainSettings, ZeroSettings

ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")


def said(settings: TrainSettings, ranks: int = 1, error: torch.OutOfMemoryError = ERROR) -> str:
    return str(explain_oom(error, settings, ranks))


def test_what_is_not_set_yet_is_named() -> None:
    words = said(TrainSettings())
    assert "for 2.50 GiB more; set train.compute.checkpoint=block or" in words
    assert "train.compute.accumulate=2, or use more GPUs, and run the same command again" in words
    assert words.endswith(
        "(--new) with train.compute.precision=bf16 or train.r1_batch_shrink=2"
    )  # fmt: skip
    assert "\n" not in words


def test_what_is_set_is_not_named_again() -> None:
    compute = ComputeSettings(precision="bf16", checkpoint="block", accumulate=4)
    settings = TrainSettings(compute=compute, zero=ZeroSettings(stage=1, offload=False), r1_gamma=0)
    words = said(settings, error=torch.OutOfMemoryError("no size"))
    assert words == (
        "the GPU has no memory; set train.compute.accumulate=8 or train.zero.offload=true, or use"
        " more GPUs, and run the same command again to continue"
    )


def advised(words: str) -> dict[str, str]:
    return dict(re.findall(r"(train\.[\w.]+)=(\w+)", words))


@pytest.mark.parametrize(("batch", "ranks", "passes", "stripes"),
                         [(24, 4, 2, 1), (24, 4, 6, 1), (12, 4, 1, 1), (10, 2, 1, 1), (10, 2, 1, 2),
                          (4, 4, 1, 1), (18, 2, 3, 1)])  # fmt: skip
def test_advice_is_not_refused(batch: int, ranks: int, passes: int, stripes: int) -> None:
    """What is to be set with the same command may change in a run, and divides the batch."""
    compute = ComputeSettings(accumulate=passes, stripes=stripes)
    settings = TrainSettings(batch=batch, compute=compute)
    now, _, new = said(settings, ranks).partition("--new")
    assert advised(now).keys() <= FREE_KEYS
    assert not advised(new).keys() & FREE_KEYS
    local = batch * stripes // ranks
    more = advised(now).get("train.compute.accumulate")
    assert (more is None) == (local == passes)
    if more is not None:
        assert int(more) > passes
        assert local % int(more) == 0


@pytest.mark.parametrize("penalties", [{}, {"r1_gamma": 0.0}])
def test_checkpoints_that_are_named_lower_the_peak(penalties: dict[str, float]) -> None:
    settings = TrainSettings(batch=4, model=ModelSettings(channel_base=4096, channel_max=64),
                             zero=ZeroSettings(stage=0), **penalties)  # fmt: skip
    assert advised(said(settings))["train.compute.checkpoint"] == "block"
    peaks = {kind: ledger(64, 1, changed(settings, checkpoint=kind)).peak_bytes
             for kind in ("none", "block", "conv")}  # fmt: skip
    assert peaks["block"] < peaks["none"]
    assert peaks["block"] < peaks["conv"]  # why those are never named
    assert "conv" not in said(changed(settings, checkpoint="block"))
