"""A GPU without enough memory: one line with what to set."""

from __future__ import annotations

import re

import torch

from sunpipe import dist
from sunpipe.errors import SunpipeError
from sunpipe.train.ledger import local_samples
from sunpipe.train_settings import TrainSettings


def explain_oom(
    error: torch.OutOfMemoryError, settings: TrainSettings, ranks: int | None = None
) -> SunpipeError:
    """What to change after an allocation failed: first what a run may change, then what it may not.

    Checkpoints per convolution are not among it: for StyleGAN2 they hold more than
    those per block except in the path-length phase, and more than none in R1
    (`sunpipe.train.ledger`).

    Parameters
    ----------
    ranks : int, optional
        That share the batch; by default those of the launcher.

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
    compute = settings.compute
    local, samples = local_samples(settings, dist.discover().world if ranks is None else ranks)
    ways = []
    if compute.checkpoint == "none":
        ways.append("train.compute.checkpoint=block")
    passes = [n for n in range(compute.accumulate + 1, local + 1) if local % n == 0]
    if passes:
        ways.append(f"train.compute.accumulate={passes[0]}")
    if settings.zero.stage and not settings.zero.offload:
        ways.append("train.zero.offload=true")
    now = f"set {' or '.join(ways)}, or use" if ways else "use"
    kept = []  # the keys that a run keeps to
    if compute.precision != "bf16":
        kept.append("train.compute.precision=bf16")
    if settings.r1_gamma + settings.r2_gamma > 0 and samples > settings.r1_batch_shrink:
        kept.append(f"train.r1_batch_shrink={2 * settings.r1_batch_shrink}")
    later = f"; or start a new run (--new) with {' or '.join(kept)}" if kept else ""
    return SunpipeError(
        f"the GPU has no memory{wanted}{peak}; {now} more GPUs, and run the same command again to"
        f" continue{later}"
    )
