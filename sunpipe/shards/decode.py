"""Chunks as HDF5 stores them, decoded without its lock: Fletcher32, bitshuffle and LZ4.

HDF5 decodes one chunk at a time under one lock per process, in several passes
over memory. Here a chunk is checked, then decoded block by block in the first
cache level, straight into the batch, by any number of threads.

Formats: the HDF5 file format specification (filter 3, Fletcher32), bitshuffle's
stream (filter 32008 with LZ4) and the LZ4 block format description.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sunpipe.compiled import kernel
from sunpipe.shards.vector import copy16, fill16, load8, merge_planes

MARGIN = 64  # bytes that may be read, and in the scratch written, behind the content
MAX_BLOCK = 1 << 16  # bytes of a decoded block; bitshuffle makes 8192
HEADER = 12  # of bitshuffle: decoded bytes (8) and bytes of a block (4), most significant first
CHECKSUM = 4
FINE, CHECKSUM_WRONG, HEADER_WRONG, BLOCK_WRONG = range(4)
FAULTS = ("", "its checksum is wrong", "its header is wrong", "a block cannot be decoded")
# By the distance of a match below 8: what repeats it over eight bytes, and the whole periods of
# two such words.
REPEAT = np.array([0, *(sum(1 << 8 * at for at in range(0, 8, back)) for back in range(1, 8))],
                  np.uint64)  # fmt: skip
STRIDES = np.array([0, 16, 16, 6, 16, 5, 6, 7])
ONES = np.uint64(2**64 - 1)


@kernel("uint32(uint8[::1], int64)")
def fletcher32(data: Any, count: int) -> Any:
    """Fletcher32 of the first `count` bytes, as HDF5 computes it.

    HDF5 adds 16-bit words with the most significant byte first. Modulo 65535 a
    swap of bytes is a product with 256, so words are added as they lie in memory.
    """
    words = data[: count // 2 * 2].view(np.uint16)
    one, two, bits = np.uint64(0), np.uint64(0), np.uint64(0)
    for start in range(0, len(words), 8192):
        part = words[start : start + 8192]
        size = np.uint32(len(part))
        total, weighted = np.uint64(0), np.uint64(0)
        for place in range(len(part)):
            word = np.uint32(part[place])
            total += np.uint64(word)
            weighted += np.uint64(word * (size - np.uint32(place)))
        two = (two + one * np.uint64(size) + weighted) % np.uint64(65535)
        one = (one + total) % np.uint64(65535)
        bits |= total
    one = (one * np.uint64(256)) % np.uint64(65535)
    two = (two * np.uint64(256)) % np.uint64(65535)
    if count % 2:
        last = np.uint64(data[count - 1])
        bits |= last
        one = (one + last * np.uint64(256)) % np.uint64(65535)
        two = (two + one) % np.uint64(65535)
    if bits != 0:  # HDF5 folds: its sums stay 65535 where the remainder is 0
        one = one if one != 0 else np.uint64(65535)
        two = two if two != 0 else np.uint64(65535)
    return np.uint32((two << np.uint64(16)) | one)


@kernel("int64(uint8[::1], int64, int64)")
def _number(data: Any, place: int, size: int) -> Any:
    """A number of `size` bytes, the most significant first."""
    value = np.int64(0)
    for byte in range(place, place + size):
        value = (value << 8) | np.int64(data[byte])
    return value


@kernel("int64(uint8[::1], int64, int64, uint8[::1], int64)")
def lz4_block(source: Any, place: int, end: int, target: Any, size: int) -> Any:
    """Decode the LZ4 block ``source[place:end]`` to exactly `size` bytes.

    Copies go in steps of 16 bytes and may overshoot by less than `MARGIN`, which
    `source` has behind `end` and `target` behind `size`.

    Returns
    -------
    int
        ``FINE`` or ``BLOCK_WRONG``; nothing outside of the arrays is touched.
    """
    here = np.int64(source.ctypes.data) + place
    last = np.int64(source.ctypes.data) + end
    first = np.int64(target.ctypes.data)
    there, full = first, first + size
    while here < last:
        token = np.int64(load8(here) & np.uint64(255))
        here += 1
        count = token >> 4
        if count < 15:
            copy16(there, here)
        else:
            more = np.int64(255)
            while more == 255:
                if here >= last:
                    return BLOCK_WRONG
                more = np.int64(load8(here) & np.uint64(255))
                here += 1
                count += more
            if count > last - here or count > full - there:
                return BLOCK_WRONG
            step = np.int64(0)
            while step < count:
                copy16(there + step, here + step)
                copy16(there + step + 16, here + step + 16)
                step += 32
        here += count
        there += count
        if here >= last:
            break
        back = np.int64(load8(here) & np.uint64(65535))
        here += 2
        if back == 0 or back > there - first:
            return BLOCK_WRONG
        count = token & 15
        if count == 15:
            more = np.int64(255)
            while more == 255:
                if here >= last:
                    return BLOCK_WRONG
                more = np.int64(load8(here) & np.uint64(255))
                here += 1
                count += more
        count += 4
        if count > full - there:
            return BLOCK_WRONG
        if back >= 16:
            copy16(there, there - back)
            copy16(there + 16, there + 16 - back)
            step = np.int64(32)
            while step < count:
                copy16(there + step, there + step - back)
                step += 16
        elif back >= 8:
            step = np.int64(0)
            while step < count:
                fill16(there + step, load8(there + step - back))
                step += 8
        else:
            # one period repeated over eight bytes; whole periods of it are kept
            period = load8(there - back) & (ONES >> np.uint64(64 - 8 * back))
            word, stride = period * REPEAT[back], STRIDES[back]
            step = np.int64(0)
            while step < count:
                fill16(there + step, word)
                step += stride
        there += count
    return FINE if here == last and there == full else BLOCK_WRONG


@kernel("void(uint8[::1], int64, uint8[::1], int64, int64)")
def _merge(planes: Any, count: int, target: Any, place: int, size: int) -> Any:
    """Put `count` (a multiple of 8) elements of `size` bytes together from their bit planes."""
    stride = count // 8
    here, there = np.int64(planes.ctypes.data), np.int64(target.ctypes.data) + place
    fast = stride // 16
    if size == 1:
        for group in range(fast):
            merge_planes(there + group * 128, here + group * 16, stride, 1)
    elif size == 2:
        for group in range(fast):
            merge_planes(there + group * 256, here + group * 16, stride, 2)
    elif size == 4:
        for group in range(fast):
            merge_planes(there + group * 512, here + group * 16, stride, 4)
    else:
        fast = 0
    for group in range(fast * 16, stride):
        for element in range(8):
            for byte in range(size):
                value = 0
                for bit in range(8):
                    row = planes[(8 * byte + bit) * stride + group]
                    value |= ((row >> element) & 1) << bit
                target[place + (8 * group + element) * size + byte] = value


@kernel("int64(uint8[::1], int64, uint8[::1], uint8[::1], int64)")
def decode_chunk(source: Any, count: int, target: Any, scratch: Any, size: int) -> Any:
    """Check and decode one chunk of bitshuffle, LZ4 and Fletcher32.

    Parameters
    ----------
    source : ndarray of uint8
        The `count` bytes as stored, and `MARGIN` more.
    count : int
    target : ndarray of uint8
        The chunk's image, all of it.
    scratch : ndarray of uint8
        At least ``MAX_BLOCK + MARGIN`` bytes, of this thread alone.
    size : int
        Bytes of an element.

    Returns
    -------
    int
        ``FINE``, or what is wrong: an index of `FAULTS`. `target` is then undefined.
    """
    end = count - CHECKSUM
    if end < HEADER or len(source) < count + MARGIN or len(scratch) < MAX_BLOCK + MARGIN:
        return HEADER_WRONG
    stored = np.int64(0)
    for byte in range(CHECKSUM):
        stored |= np.int64(source[end + byte]) << (8 * byte)
    if np.int64(fletcher32(source, end)) != stored:
        return CHECKSUM_WRONG
    block = _number(source, 8, 4)
    whole = block >= 8 * size and block <= MAX_BLOCK and block % (8 * size) == 0
    if not whole or _number(source, 0, 8) != len(target):
        return HEADER_WRONG
    rest = len(target) % (8 * size)  # the last elements are stored as they are
    place, done = np.int64(HEADER), np.int64(0)
    while done < len(target) - rest:
        length = min(block, len(target) - rest - done)
        if place + 4 > end:
            return BLOCK_WRONG
        stop = place + 4 + _number(source, place, 4)
        if stop > end or lz4_block(source, place + 4, stop, scratch, length) != FINE:
            return BLOCK_WRONG
        _merge(scratch, length // size, target, done, size)
        place, done = stop, done + length
    if end - place != rest:
        return BLOCK_WRONG
    target[done:] = source[place:end]
    return FINE
