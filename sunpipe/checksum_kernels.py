"""The sum behind FITS checksums at the speed of memory, compiled."""

from __future__ import annotations

import numpy as np
from numba import uint32, uint64

from sunpipe.compiled import kernel


@kernel("uint64(Array(uint32,1,'C',readonly=True))")
def sum_big_endian(words):  # type: ignore[no-untyped-def]
    """Sum of big-endian words that were taken as little-endian ones."""
    total = np.uint64(0)
    low, middle = np.uint32(0xFF00), np.uint32(8)
    for k in range(words.size):
        word = words[k]
        swapped = (word >> np.uint32(24)) | ((word >> middle) & low)
        swapped |= ((word & low) << middle) | (word << np.uint32(24))
        total += uint64(uint32(swapped))
    return total
