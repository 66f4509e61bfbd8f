"""One rank of the self-test's tests: what it finds, also when DeepSpeed is set wrongly."""

from __future__ import annotations

import json
import sys
import time
from typing import Any
from unittest.mock import patch

import torch

from sunpipe import dist
from sunpipe.errors import SunpipeError
from sunpipe.train import engine
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
        if fault == "error" and zero.stage > 1:
            raise RuntimeError("bucket code is at fault\nand more")
        return config

    return patch.object(engine, "deepspeed_config", wrong)


def main() -> None:
    """Cases from the command line: settings, and ``fault``."""
    ranks = dist.discover()
    torch.set_num_threads(1)
    device = initialize(ranks)
    for case in json.loads(sys.argv[1]):
        fault, before = case.pop("fault", ""), torch.get_rng_state()
        started, said, found = time.process_time(), "", -1.0
        try:
            with spoil(fault):
                found = self_test(settings(case), ranks, device)
        except SunpipeError as error:
            said = str(error)
        seconds = time.process_time() - started
        kept = torch.equal(before, torch.get_rng_state())
        print(json.dumps({"found": found, "said": said, "seconds": seconds, "random": kept}))
