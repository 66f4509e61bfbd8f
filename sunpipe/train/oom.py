"""A GPU without enough memory: one line with what to set."""

from __future__ import annotations

import re

import torch

from sunpipe.errors import SunpipeError
from sunpipe.train_settings import TrainSettings


def explain_oom(error: torch.OutOfMemoryError, settings: TrainSettings) -> SunpipeError:
    """What to change after an allocation failed, the cheapest first.

    Returns
    -------
    SunpipeError
        To be raised in place of `error`.
    """
    asked = re.search(r"Tried to allocate ([\d.]+ [KMGT]iB)", str(error))
    wanted = f" for {asked[1]} more" if asked else ""
    peak = ""
    if torch.cuda.is_available():
        device = torch.cuda.current_device()
        total = torch.cuda.get_device_properties(device).total_memory
        held = torch.cuda.max_memory_allocated(device)
        peak = f" (peak {held / 2**30:.1f} of {total / 2**30:.1f} GiB)"
    compute, ways = settings.compute, []
    if compute.precision == "fp32":
        ways.append("train.compute.precision=bf16")
    if compute.checkpoint == "none":
        ways.append("train.compute.checkpoint=block")
    ways.append(f"train.compute.accumulate={2 * compute.accumulate}")
    if compute.checkpoint == "block":
        ways.append("train.compute.checkpoint=conv")
    if settings.zero.stage and not settings.zero.offload:
        ways.append("train.zero.offload=true")
    return SunpipeError(
        f"the GPU has no memory{wanted}{peak}; set {' or '.join(ways)}, or use more GPUs, and run"
        " the same command again to continue"
    )
