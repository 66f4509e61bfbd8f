"""What is kept of each image: rows of numbers that ranks can gather."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureBlock:
    """Numbers of N images, by name.

    Attributes
    ----------
    arrays : mapping of str to ndarray, shape (N, d)
        d is its own for each name; see `Lens.features`.
    """

    arrays: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        if not self.arrays or any(array.ndim != 2 for array in self.arrays.values()):
            raise ValueError("a block is made of arrays (N, d)")
        if len({len(array) for array in self.arrays.values()}) > 1:
            raise ValueError("the arrays of a block have different numbers of images")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def take(self, rows: NDArray[np.integer[Any]] | slice) -> FeatureBlock:
        """Some of the images."""
        return FeatureBlock({name: array[rows] for name, array in self.arrays.items()})

    @staticmethod
    def concat(blocks: Iterable[FeatureBlock]) -> FeatureBlock:
        """Images of several blocks in turn; a `ValueError` when they hold different things."""
        parts = list(blocks)
        if not parts:
            raise ValueError("no block to join")
        shapes = [{name: array.shape[1] for name, array in part.arrays.items()} for part in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"blocks of different features: {shapes}")
        return FeatureBlock(
            {name: np.concatenate([part[name] for part in parts]) for name in shapes[0]}
        )
