"""The checksum of an uncompressed image: two 64-bit sums that anyone can compute.

With w the image's bytes as n little-endian 32-bit words (zeros to a whole word)::

    w = words.astype(np.uint64)
    sums = [w.sum(), (w * np.arange(n, 0, -1, dtype=np.uint64)).sum()]      # modulo 2**64

The first sum is exact, so every change of one word is seen; the second weighs a
word by its place, so words that changed places are seen too. It is Fletcher's
checksum (IEEE Trans. Comm. COM-30, 1982) without his modulus, for which a word
of ones equals a word of zeros, and it runs at the speed of memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.compiled import kernel
from sunpipe.shards.vector import sum_words


@kernel("void(uint8[::1], uint64[::1])")
def add_to_sums(data: Any, sums: Any) -> None:
    """Add the bytes that follow to `sums`; all parts but the last are whole words."""
    size = len(data) // 4
    lanes = np.empty(32, np.uint64)
    sum_words(np.int64(data.ctypes.data), size // 16, np.int64(lanes.ctypes.data))
    one, two = np.uint64(0), np.uint64(0)
    for lane in range(8):
        # 64-bit word lane + 8 k holds 32-bit words 2 lane + 16 k, and the next one above it;
        # word j + 16 k among 16 K words weighs 16 (K - k) - j
        upper, upper_weighted = lanes[16 + lane], lanes[24 + lane]
        lower = lanes[lane] - (upper << np.uint64(32))
        lower_weighted = lanes[8 + lane] - (upper_weighted << np.uint64(32))
        one += lower + upper
        two += np.uint64(16) * (lower_weighted + upper_weighted)
        two -= np.uint64(2 * lane) * lower + np.uint64(2 * lane + 1) * upper
    words = data[size // 16 * 64 : size * 4].view(np.uint32)
    for place in range(len(words)):
        one += np.uint64(words[place])
        two += one
    sums[1] += two + sums[0] * np.uint64(size)
    sums[0] += one
    last = np.uint64(0)
    for place in range(4 * size, len(data)):
        last |= np.uint64(data[place]) << np.uint64(8 * (place - 4 * size))
    if 4 * size < len(data):
        sums[0] += last
        sums[1] += sums[0]


def image_sums(image: NDArray[Any]) -> NDArray[np.uint64]:
    """The two sums of an image, as stored in ``/image_sums``.

    Parameters
    ----------
    image : ndarray
        Any shape and type; its bytes in C order count.

    Returns
    -------
    ndarray of uint64, shape (2,)
    """
    sums = np.zeros(2, np.uint64)
    add_to_sums(np.ascontiguousarray(image).reshape(-1).view(np.uint8), sums)
    return sums
