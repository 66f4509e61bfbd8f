"""The order of samples as a pure function of (seed, nimg): nothing to save, nothing to lose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, turn: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0x5EED, turn]).permutation(count)


def sample_indices(count: int, seed: int, nimg: int, batch: int) -> NDArray[np.int64]:
    """Indices of the next `batch` samples after `nimg` images were shown.

    Samples are drawn without replacement; each pass over the data has its own
    permutation.

    Parameters
    ----------
    count : int
        Number of samples in the dataset.
    seed, nimg, batch : int
        The result depends on nothing else.

    Returns
    -------
    ndarray of int64, shape (batch,)
    """
    if count < 1:
        raise ValueError("the dataset has no samples")
    places = np.arange(nimg, nimg + batch)
    return np.array([_permutation(count, seed, int(p // count))[p % count] for p in places])


def generator_seed(seed: int, rank: int, nimg: int, purpose: str) -> int:
    """A 63-bit seed for a random generator, pure in its arguments."""
    words = [seed, rank, nimg, int.from_bytes(purpose.encode(), "little")]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
