"""Chance in a training step: every number belongs to one sample and one purpose.

The numbers are pure functions of (seed, images shown, purpose, sample), so that
a resume needs no random state and a batch is the same at any number of ranks.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sunpipe.models.noise import SampleNoise, mix, normal
from sunpipe.shards.order import generator_seed


@dataclass(frozen=True)
class Chance:
    """Random numbers of the samples that one rank, or one micro-batch of it, holds.

    Attributes
    ----------
    seeds : tuple of int
        One 64-bit seed per sample.
    device : torch.device
        Where the numbers are wanted. Small ones are drawn on the CPU, so that
        they do not depend on it.
    """

    seeds: tuple[int, ...]
    device: torch.device

    @classmethod
    def of(
        cls, seed: int, nimg: int, purpose: str, samples: Sequence[int], device: torch.device
    ) -> Chance:
        """Chance of these places in the global batch that starts at `nimg`."""
        base = generator_seed(seed, 0, nimg, purpose)
        return cls(tuple(mix(base, sample) for sample in samples), device)

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, index: int, count: int) -> Chance:
        """Every `count`-th sample from the `index`-th on."""
        return Chance(self.seeds[index::count], self.device)

    def child(self, name: str) -> Chance:
        """Chance of the same samples for another purpose."""
        return Chance(tuple(self._named(name)), self.device)

    def first(self, count: int) -> Chance:
        """The first `count` samples."""
        return Chance(self.seeds[:count], self.device)

    def _named(self, name: str) -> list[int]:
        word = zlib.crc32(name.encode())
        return [mix(seed, word) for seed in self.seeds]

    def normal(self, name: str, *shape: int) -> torch.Tensor:
        """Standard normal numbers (B, *shape), float32, drawn on the CPU."""
        drawn = normal(self._named(name), shape, torch.device("cpu"), torch.float32)
        return drawn.to(self.device, non_blocking=True)

    def uniform(self, name: str) -> torch.Tensor:
        """One number from [0, 1) per sample, (B,), float32."""
        numbers = [(seed >> 40) * 2.0**-24 for seed in self._named(name)]
        return torch.tensor(numbers, dtype=torch.float32).to(self.device, non_blocking=True)

    def integers(self, name: str, low: int, high: int) -> torch.Tensor:
        """One whole number from [low, high) per sample, (B,), int64."""
        numbers = [low + ((seed * (high - low)) >> 64) for seed in self._named(name)]
        return torch.tensor(numbers, dtype=torch.int64).to(self.device, non_blocking=True)

    def maps(self, name: str, *shape: int) -> torch.Tensor:
        """Standard normal maps (B, *shape), float32, drawn where they are used."""
        return normal(self._named(name), shape, self.device, torch.float32)

    def noise(self, name: str) -> SampleNoise:
        """Noise of the synthesis layers."""
        return SampleNoise(tuple(self._named(name)))
