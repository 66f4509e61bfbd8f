"""Integers to RICE_1 streams, one per row: the inverse of `sunpipe.rice_kernels`.

The split is chosen as cfitsio does, so the streams are the same bits as its own.

References
----------
FITS Standard 4.0 (2018): section 10.4.1.
R. F. Rice, P.-S. Yeh, W. Miller (1993): Algorithms for a very high speed universal
noiseless coding module, JPL Publication 91-3.
"""

from __future__ import annotations

import numpy as np
from numba import int16, int32, int64, uint8, uint64
from numpy.typing import NDArray

from sunpipe.compiled import kernel

BLOCK = 32  # differences that share a code
MANY = 24  # zeros: with 7 bits held, a one and 24 low bits they still fit in 64


@kernel(
    "int64(int16[:,::1], uint8[::1], int64[::1])", "int64(int32[:,::1], uint8[::1], int64[::1])"
)
def _encode(image, heap, ends):  # type: ignore[no-untyped-def]
    """Write the streams of all rows one after the other; returns the bytes used."""
    wide = image.itemsize == 4
    bits = 32 if wide else 16
    code_bits, raw_split = (5, 25) if wide else (4, 14)
    folded = np.empty(BLOCK, np.int64)
    at = 0
    for row in range(image.shape[0]):
        store, held = uint64(0), 0  # bits not yet written, and how many: always under 8
        last = int64(image[row, 0])
        for shift in range(bits - 8, -8, -8):  # the first pixel as it is
            heap[at] = uint8((last >> shift) & 255)
            at += 1
        for start in range(0, image.shape[1], BLOCK):
            size = min(BLOCK, image.shape[1] - start)
            total = int64(0)
            for n in range(size):
                value = int64(image[row, start + n])
                # differences wrap around as the integers do
                step = int64(int32(value - last)) if wide else int64(int16(value - last))
                last = value
                folded[n] = 2 * step if step >= 0 else -2 * step - 1
                total += folded[n]
            # as many low bits as half the mean difference has (Rice, Yeh and Miller 1993)
            half = int64(max((total - size // 2 - 1) / size, 0.0)) >> 1
            split = 0
            while half > 0:
                half >>= 1
                split += 1
            if split >= raw_split:
                code, low = raw_split + 1, bits
            elif total == 0:
                code, low = 0, 0
            else:
                code, low = split + 1, split
            store = (store << uint64(code_bits)) | uint64(code)
            held += code_bits
            while held >= 8:
                held -= 8
                heap[at] = uint8((store >> uint64(held)) & uint64(255))
                at += 1
            if code == 0:
                continue
            for n in range(size):
                value, width = folded[n], low
                if split < raw_split:
                    zeros = value >> split  # the high part
                    while zeros > MANY:
                        store <<= uint64(MANY)
                        held += MANY
                        zeros -= MANY
                        while held >= 8:
                            held -= 8
                            heap[at] = uint8((store >> uint64(held)) & uint64(255))
                            at += 1
                    value = (value & ((1 << low) - 1)) | (1 << low)
                    width = zeros + 1 + low
                store = (store << uint64(width)) | uint64(value)
                held += width
                while held >= 8:
                    held -= 8
                    heap[at] = uint8((store >> uint64(held)) & uint64(255))
                    at += 1
        if held:
            heap[at] = uint8((store << uint64(8 - held)) & uint64(255))
            at += 1
        ends[row] = at
    return at


def encode_rows(image: NDArray[np.signedinteger]) -> tuple[bytes, NDArray[np.int64]]:
    """Compress an int16 or int32 image row by row.

    Returns
    -------
    heap : bytes
        The streams, in the order of rows.
    ends : int64 ndarray (H,)
        Where each ends in the heap.
    """
    rows, columns = image.shape
    ends = np.empty(rows, np.int64)
    # a block takes its code and at most what the raw differences take, and half a block of zeros
    most = image.itemsize * (columns + 1) + columns + 8
    heap = np.empty(rows * (most + image.itemsize * columns), np.uint8)
    size = _encode(np.ascontiguousarray(image), heap, ends)
    return heap[:size].tobytes(), ends
