"""What the training loops share: intervals in images, memory."""

from __future__ import annotations

import resource

import torch


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both in images."""
    every = max(round(every_kimg * 1000), 1)
    return before // every != after // every


def peak_memory_bytes(device: torch.device) -> int:
    """Most bytes in use so far: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
