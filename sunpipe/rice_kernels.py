"""RICE_1 streams to integers, four tiles at a time.

A tile is a stream of its own: the first pixel as it is, then blocks of
differences to the pixel before. A block begins with a code: 0 when all its
differences are 0, the highest code when they follow as they are, else one more
than the number `split` of low bits; each difference is then a run of zeros
(its high part), a one, and `split` low bits. Differences are folded: 0, -1, 1,
-2 ... become 0, 1, 2, 3.

Decoding one stream is one long chain of dependent instructions; four streams
side by side fill the processor. The four are decoded block by block: quickly
where all have plain codes and room for the wide loads, else one by one and with
every step checked. No load leaves `heap`, whatever the bits say, and no pixel is
written beyond the tile's.

References
----------
FITS Standard 4.0 (2018): section 10.4.1.
R. L. White, P. Greenfield, W. Pence, D. Tody, R. Seaman (2011): Tiled image convention.
R. F. Rice, P.-S. Yeh, W. Miller (1993): Algorithms for a very high speed universal
noiseless coding module, JPL Publication 91-3.
"""

from __future__ import annotations

import numpy as np
from numba import int16, int32, int64, njit, uint64

from sunpipe.compiled import kernel
from sunpipe.rice_bits import leading_zeros, load64

ONE, THREE, LOW3, LOW6 = np.uint64(1), np.uint64(3), np.uint64(7), np.uint64(63)
LONG, LONGEST = np.uint64(10), np.uint64(23)  # splits of which 4, and 2, fit in one window
SURE = 57  # bits of a 64-bit window that are there whatever the bit it begins with
ROOM = 32 * 12 + 8  # bytes that the wide loads of one block can reach, whatever its bits


@njit(inline="always")
def _window(heap, place):  # type: ignore[no-untyped-def]
    """64 bits from bit `place` on, 57 or more of them real; 0 beyond the end of the heap."""
    byte = int64(place >> THREE)
    if byte + 8 <= heap.size:
        return load64(heap, byte) << (place & LOW3)
    word = uint64(0)
    for k in range(8):
        word <<= np.uint64(8)
        if byte + k < heap.size:
            word |= uint64(heap[byte + k])
    return word << (place & LOW3)


@njit(inline="always")
def _unfold(value):  # type: ignore[no-untyped-def]
    return (value >> ONE) ^ (uint64(0) - (value & ONE))


@njit(inline="always")
def _several(heap, place, split, last, out, at, number):  # type: ignore[no-untyped-def]
    """`number` pixels of one window: place after them, last pixel, negative if it was too short."""
    word = load64(heap, int64(place >> THREE)) << (place & LOW3)
    down, mark, after = LOW6 - split, ONE << split, split + ONE
    run = uint64(0)
    for k in range(number):
        zeros = leading_zeros(word)
        head = word << (zeros & LOW6)  # begins with the one that ends the run
        last += _unfold((zeros << split) + (head >> down) - mark)
        out[uint64(at + k)] = int32(last)
        run += zeros
        word = head << after
    used = run + uint64(number) * after
    return place + used, last, int64(SURE) - int64(used)


@njit
def _quick(heap, place, split, last, out, at, count):  # type: ignore[no-untyped-def]
    """One block of plain code: (place, or 0 when a window was too short, last pixel)."""
    short = int64(0)
    if split < LONG:
        for k in range(at, at + count, 4):
            place, last, room = _several(heap, place, split, last, out, k, 4)
            short |= room
    else:
        for k in range(at, at + count, 2):
            place, last, room = _several(heap, place, split, last, out, k, 2)
            short |= room
    return (uint64(0) if short < 0 else place), last


@njit
def _careful(heap, place, end, code, top, bits, last, out, at, count):  # type: ignore[no-untyped-def]
    """One block of one tile with every step checked: (place or 0 when damaged, last pixel)."""
    if code == 0:
        for k in range(at, at + count):
            out[k] = int32(last)
    elif code == top:
        for k in range(at, at + count):
            last += _unfold(_window(heap, place) >> (np.uint64(64) - bits))
            place += bits
            out[k] = int32(last)
    elif code > top:
        return uint64(0), last
    else:
        split = code - ONE
        for k in range(at, at + count):
            run = uint64(0)
            word = _window(heap, place)
            while word >> np.uint64(64 - SURE) == 0:
                run += np.uint64(SURE)
                place += np.uint64(SURE)
                if place > end:
                    return uint64(0), last
                word = _window(heap, place)
            zeros = leading_zeros(word)
            place += zeros + ONE
            low = (_window(heap, place) >> ONE) >> (LOW6 - split)
            place += split
            last += _unfold(((run + zeros) << split) | low)
            out[k] = int32(last)
    return (uint64(0) if place > end else place), last


@njit
def _block(heap, place, end, code, top, bits, last, out, at, count):  # type: ignore[no-untyped-def]
    """`_careful`, quickly where that is possible."""
    plain = 0 < code < min(top, LONGEST) and count % 4 == 0
    if plain and int64(place >> THREE) + ROOM <= heap.size:
        after, pixel = _quick(heap, place, code - ONE, last, out, at, count)
        if after != 0:
            return (uint64(0) if after > end else after), pixel
    return _careful(heap, place, end, code, top, bits, last, out, at, count)


@njit
def _wrap(out, at, count, bits):  # type: ignore[no-untyped-def]
    """Pixels of 8 (unsigned) or 16 bits from sums that kept 32."""
    if bits == 16:
        for k in range(at, at + count):
            out[k] = int16(out[k])
    elif bits == 8:
        for k in range(at, at + count):
            out[k] &= 0xFF


@njit
def _one(heap, start, stop, bits, block, out, at, pixels):  # type: ignore[no-untyped-def]
    """One tile; False when it is damaged."""
    width = np.uint64(3) if bits == 8 else np.uint64(4) if bits == 16 else np.uint64(5)
    top = np.uint64(7) if bits == 8 else np.uint64(15) if bits == 16 else np.uint64(26)
    size, end = uint64(bits), uint64(stop) << THREE
    place = uint64(start) << THREE
    last = _window(heap, place) >> (np.uint64(64) - size)
    place += size
    for first in range(0, pixels, block):
        if place > end:
            return False
        code = _window(heap, place) >> (np.uint64(64) - width)
        count = min(block, pixels - first)
        place, last = _block(
            heap, place + width, end, code, top, size, last, out, at + first, count
        )
        if place == 0:
            return False
    _wrap(out, at, pixels, bits)
    return end - place < 8


@njit
def _four(heap, starts, stops, bits, block, out, tile, pixels, lanes):  # type: ignore[no-untyped-def]
    """Tiles `tile` to `tile` + 3, in `out`; False when one is damaged. `lanes` (4, 3) is room."""
    width = np.uint64(3) if bits == 8 else np.uint64(4) if bits == 16 else np.uint64(5)
    top = np.uint64(7) if bits == 8 else np.uint64(15) if bits == 16 else np.uint64(26)
    size, shift, high = uint64(bits), np.uint64(64) - width, np.uint64(64) - uint64(bits)
    e0, e1 = uint64(stops[tile]) << THREE, uint64(stops[tile + 1]) << THREE
    e2, e3 = uint64(stops[tile + 2]) << THREE, uint64(stops[tile + 3]) << THREE
    p0, p1 = uint64(starts[tile]) << THREE, uint64(starts[tile + 1]) << THREE
    p2, p3 = uint64(starts[tile + 2]) << THREE, uint64(starts[tile + 3]) << THREE
    l0, l1 = _window(heap, p0) >> high, _window(heap, p1) >> high
    l2, l3 = _window(heap, p2) >> high, _window(heap, p3) >> high
    p0, p1, p2, p3 = p0 + size, p1 + size, p2 + size, p3 + size
    safe = uint64(max(heap.size - ROOM, 0)) << THREE
    for first in range(0, pixels, block):
        if p0 > e0 or p1 > e1 or p2 > e2 or p3 > e3:
            return False
        c0, c1 = _window(heap, p0) >> shift, _window(heap, p1) >> shift
        c2, c3 = _window(heap, p2) >> shift, _window(heap, p3) >> shift
        p0, p1, p2, p3 = p0 + width, p1 + width, p2 + width, p3 + width
        a0, count = first, min(block, pixels - first)
        a1, a2, a3 = a0 + pixels, a0 + 2 * pixels, a0 + 3 * pixels
        widest = max(max(c0, c1), max(c2, c3))
        if widest == 0:  # off the disc: all pixels are BLANK
            for k in range(count):
                out[uint64(a0 + k)], out[uint64(a1 + k)] = int32(l0), int32(l1)
                out[uint64(a2 + k)], out[uint64(a3 + k)] = int32(l2), int32(l3)
            continue
        plain = min(min(c0, c1), min(c2, c3)) > 0 and widest < min(top, LONGEST)
        if plain and count % 4 == 0 and max(max(p0, p1), max(p2, p3)) < safe:
            s0, s1, s2, s3 = c0 - ONE, c1 - ONE, c2 - ONE, c3 - ONE
            q0, q1, q2, q3, m0, m1, m2, m3 = p0, p1, p2, p3, l0, l1, l2, l3
            short = int64(0)
            if widest <= LONG:
                for k in range(0, count, 4):
                    q0, m0, x0 = _several(heap, q0, s0, m0, out, a0 + k, 4)
                    q1, m1, x1 = _several(heap, q1, s1, m1, out, a1 + k, 4)
                    q2, m2, x2 = _several(heap, q2, s2, m2, out, a2 + k, 4)
                    q3, m3, x3 = _several(heap, q3, s3, m3, out, a3 + k, 4)
                    short |= x0 | x1 | x2 | x3
            else:
                for k in range(0, count, 2):
                    q0, m0, x0 = _several(heap, q0, s0, m0, out, a0 + k, 2)
                    q1, m1, x1 = _several(heap, q1, s1, m1, out, a1 + k, 2)
                    q2, m2, x2 = _several(heap, q2, s2, m2, out, a2 + k, 2)
                    q3, m3, x3 = _several(heap, q3, s3, m3, out, a3 + k, 2)
                    short |= x0 | x1 | x2 | x3
            if short >= 0:
                p0, p1, p2, p3, l0, l1, l2, l3 = q0, q1, q2, q3, m0, m1, m2, m3
                continue
        lanes[0, 0], lanes[1, 0], lanes[2, 0], lanes[3, 0] = p0, p1, p2, p3
        lanes[0, 1], lanes[1, 1], lanes[2, 1], lanes[3, 1] = l0, l1, l2, l3
        lanes[0, 2], lanes[1, 2], lanes[2, 2], lanes[3, 2] = c0, c1, c2, c3
        for k in range(4):
            end, at = uint64(stops[tile + k]) << THREE, first + k * pixels
            lanes[k, 0], lanes[k, 1] = _block(
                heap, lanes[k, 0], end, lanes[k, 2], top, size, lanes[k, 1], out, at, count
            )
            if lanes[k, 0] == 0:
                return False
        p0, p1, p2, p3 = lanes[0, 0], lanes[1, 0], lanes[2, 0], lanes[3, 0]
        l0, l1, l2, l3 = lanes[0, 1], lanes[1, 1], lanes[2, 1], lanes[3, 1]
    if p0 > e0 or p1 > e1 or p2 > e2 or p3 > e3:
        return False
    _wrap(out, 0, 4 * pixels, bits)
    return e0 - p0 < 8 and e1 - p1 < 8 and e2 - p2 < 8 and e3 - p3 < 8


@kernel("boolean(Array(uint8,1,'C',readonly=True),int64[::1],int64[::1],int64,int64,int32[:,::1])")
def decode_tiles(heap, starts, stops, bits, block, out):  # type: ignore[no-untyped-def]
    """Decode tiles of equal size.

    Parameters
    ----------
    heap : uint8 ndarray
        Bytes that hold the streams.
    starts, stops : int64 ndarray (N,)
        First byte of each stream and the one after its last, all within `heap`.
    bits : int
        Of a pixel: 8 (unsigned), 16 or 32.
    block : int
        Pixels of a block, 16 or 32.
    out : int32 ndarray (N, pixels of a tile)
        Filled with the pixels.

    Returns
    -------
    bool
        False when a stream is damaged: it ends early or late, or holds a code
        that the standard does not know.
    """
    tiles, pixels = out.shape
    flat = out.reshape(-1)
    whole = tiles - tiles % 4
    lanes = np.empty((4, 3), np.uint64)  # place, last pixel and code of each stream
    for tile in range(0, whole, 4):
        part = flat[tile * pixels : (tile + 4) * pixels]
        if not _four(heap, starts, stops, bits, block, part, tile, pixels, lanes):
            return False
    for tile in range(whole, tiles):
        if not _one(heap, starts[tile], stops[tile], bits, block, flat, tile * pixels, pixels):
            return False
    return True
