"""One rank of the self-test's tests: what it finds, also when DeepSpeed is set wrongly."""

from __future__ import annotations

import json
import sys
from typing import Any
from unittest.mock import patch

import torch

from sunpipe import dist
from sunpipe.cli import guarded
from sunpipe.errors import SunpipeError
from sunpipe.train import engine
from sunpipe.train.peers import naming_lost_peers
from sunpipe.train.process_group import initialize
from sunpipe.train.selftest import self_test
from sunpipe.train_settings import ComputeSettings, TrainSettings, ZeroSettings


def settings(case: dict[str, Any]) -> TrainSettings:
    """Settings of a run from plain values."""
    zero = ZeroSettings(stage=case.pop("stage", 1), offload=case.pop("offload", False))
    compute = ComputeSettings(accumulate=case.pop("accumulate", 1))
    return TrainSettings(zero=zero, compute=compute, **case)


def spoil(fault: str) -> Any:
    """DeepSpeed's settings with a fault in stages 1 and up."""
    whole = engine.deepspeed_config

    def wrong(zero: ZeroSettings, *args: Any) -> dict[str, Any]:
        config = whole(zero, *args)
        if fault == "clip" and zero.stage > 0:
            config["gradient_clipping"] = 1.0
            config["zero_optimization"]["compute_grad_norm"] = True
        if fault == "error" and zero.stage > 1:
            raise RuntimeError("bucket code is at fault\nand more")
        if fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")
        return config

    return patch.object(engine, "deepspeed_config", wrong)


def alone(ranks: dist.Ranks, device: torch.device) -> None:
    """The self-test of ranks of which the last fails alone, while the others exchange."""
    whole, calls = engine.Engine.step, []

    def wrong(self: engine.Engine, phase: str, parts: Any) -> Any:
        calls.append(phase)
        if ranks.rank == ranks.world - 1 and len(calls) == 3:
            raise RuntimeError("one kernel is missing")
        return whole(self, phase, parts)

    with naming_lost_peers(ranks, 60), patch.object(engine.Engine, "step", wrong):
        self_test(settings({"stage": 1}), ranks, device)


def main() -> None:
    """Cases from the command line: settings, and ``fault``; or the word ``alone``."""
    ranks = dist.discover()
    torch.set_num_threads(1)
    device = initialize(ranks, 60)
    if sys.argv[1] == "alone":
        guarded(lambda: alone(ranks, device))
        return
    for case in json.loads(sys.argv[1]):
        fault, before = case.pop("fault", ""), torch.get_rng_state()
        said, found = "", -1.0
        try:
            with spoil(fault):
                found = self_test(settings(case), ranks, device)
        except (SunpipeError, torch.OutOfMemoryError) as error:
            said = str(error)
        kept = torch.equal(before, torch.get_rng_state())
        print(json.dumps({"found": found, "said": said, "random": kept}))
