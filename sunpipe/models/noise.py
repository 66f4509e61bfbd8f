"""Random numbers that belong to a sample: pure functions of its seed.

A batch drawn so is the same on any number of ranks, and a layer that is
computed twice (activation checkpointing) sees the same noise without keeping it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MASK = 2**64 - 1


def mix(seed: int, word: int) -> int:
    """Combine two 64-bit numbers: the finaliser of SplitMix64 (doi:10.1145/2660193.2660195)."""
    x = (seed + (word + 1) * 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def normal(
    seeds: Sequence[int], shape: Sequence[int], device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Standard normal numbers, (B, *shape): row b depends on ``seeds[b]`` alone.

    Drawn on `device`; a CPU and a GPU give different numbers for a seed.
    """
    out = torch.empty((len(seeds), *shape), device=device, dtype=dtype)
    source = torch.Generator(device)
    for row, seed in zip(out, seeds, strict=True):
        row.normal_(generator=source.manual_seed(seed >> 1))
    return out


@dataclass(frozen=True)
class SampleNoise:
    """Noise maps of the synthesis layers for one batch.

    Attributes
    ----------
    seeds : tuple of int
        One 64-bit seed per sample.
    """

    seeds: tuple[int, ...]

    def __call__(
        self, layer: int, size: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Standard normal map of one layer, (B, 1, size, size)."""
        return normal([mix(seed, layer) for seed in self.seeds], (1, size, size), device, dtype)
