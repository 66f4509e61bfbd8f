"""The decoder on random streams, in buffers that end where a page of memory is forbidden.

Run as ``python -m tests.unit.rice_fuzz STREAMS FILES``; prints counts as JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import time

import numpy as np

from sunpipe.fits import parse_segment
from sunpipe.fitsfile import BLOCK, FitsError
from sunpipe.fitsreduced import parse_reduced
from sunpipe.rice_kernels import decode_tiles
from tests.unit.rice_file import encode, rice_file

PAGE = mmap.PAGESIZE


class Fence:
    """Memory between two pages that kill the process when touched."""

    def __init__(self, size: int) -> None:
        self.pages = -(-size // PAGE)
        self.memory = mmap.mmap(-1, (self.pages + 2) * PAGE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        for page in (0, self.pages + 1):
            place = ctypes.c_void_p(self.base + page * PAGE)
            if protect(place, ctypes.c_size_t(PAGE), ctypes.c_int(0)):
                raise OSError(ctypes.get_errno(), "mprotect")

    def array(self, size: int, dtype: type, at_end: bool) -> np.ndarray:
        """`size` items that end at the last allowed byte, or begin at the first."""
        width = size * np.dtype(dtype).itemsize
        place = PAGE + (self.pages * PAGE - width if at_end else 0)
        return np.frombuffer(self.memory, dtype, size, place)


Case = tuple[int, int, list[bytes], int]


def good_streams(number: int, most: int, rng: np.random.Generator) -> list[Case]:
    """(bits, block, streams of equal size, pixels of each) of images of every roughness."""
    cases = []
    for case in range(number):
        bits, block = (8, 16, 32)[case % 3], (16, 32)[case // 3 % 2]
        tiles, pixels = int(rng.integers(1, most + 1)), int(rng.integers(1, 300))
        scale = 2.0 ** rng.uniform(0, bits - 2)
        image = np.rint(rng.normal(0, scale, (tiles, pixels))).astype(np.int64)
        cases.append((bits, block, [encode(row, bits, block) for row in image], pixels))
    return cases


def streams(number: int, rng: np.random.Generator) -> int:
    """Decode random and damaged streams; how many were accepted."""
    most, room = 6, 9000
    heap_fence, out_fence = Fence(room), Fence(4 * most * 300)
    pool = good_streams(150, most, rng)
    accepted = 0
    for turn in range(number):
        if turn % 2:
            bits, block = int(rng.choice([8, 16, 32])), int(rng.choice([16, 32]))
            tiles, pixels = int(rng.integers(1, most + 1)), int(rng.integers(1, 300))
            source = rng.bytes(int(rng.integers(1, room)))
            if turn % 4 == 1:  # long runs of zeros
                source = bytes(byte if byte > 200 else 0 for byte in source)
            ends = np.sort(rng.integers(0, len(source) + 1, 2 * tiles)).reshape(tiles, 2)
        else:
            bits, block, parts, pixels = pool[int(rng.integers(len(pool)))]
            tiles = len(parts)
            edges = np.cumsum([0, *(len(part) for part in parts)])
            changed = bytearray(b"".join(parts))[:room]
            for _ in range(int(rng.integers(4))):
                changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
            ends = np.minimum(np.stack([edges[:-1], edges[1:]], axis=1), len(changed))
            source = bytes(changed)
        heap = heap_fence.array(len(source), np.uint8, at_end=bool(rng.random() < 0.8))
        heap[:] = np.frombuffer(source, np.uint8)
        out = out_fence.array(tiles * pixels, np.int32, at_end=bool(rng.random() < 0.8))
        starts, stops = (np.ascontiguousarray(edge, np.int64) for edge in ends.T)
        heap.flags.writeable = False
        accepted += decode_tiles(heap, starts, stops, bits, block, out.reshape(tiles, pixels))
    return accepted


def files(number: int, rng: np.random.Generator) -> tuple[int, int, float]:
    """Read files with damaged tables, headers and streams: (refused, read, longest seconds)."""
    image = np.rint(rng.normal(100, 9, (12, 64))).astype(np.int64)
    whole = [
        rice_file(image, bits, tile, form=form)
        for bits in (8, 16, 32)
        for tile in ((1, 64), (5, 20), (12, 64))
        for form in "PQ"
    ]
    data = 2 * BLOCK  # one block of the primary, one of the table's header
    refused = read = 0
    longest = 0.0
    for turn in range(number):
        raw = bytearray(whole[int(rng.integers(len(whole)))])
        kind = turn % 4
        if kind == 0:  # descriptors: lengths and offsets
            raw[data + int(rng.integers(90))] = int(rng.integers(256))
        elif kind == 1:  # the streams
            for place in rng.integers(data, len(raw), 8):
                raw[place] = int(rng.integers(256))
        elif kind == 2:  # digits of the header's numbers
            digits = [k for k in range(BLOCK, data) if chr(raw[k]).isdigit()]
            raw[int(rng.choice(digits))] = ord("0") + int(rng.integers(10))
        else:  # the end is missing, or bytes are repeated
            cut = data + int(rng.integers(len(raw) - data))
            raw = raw[:cut] if turn % 8 == 3 else (raw[:cut] + raw[data:])[: len(raw)]
        begin = time.perf_counter()
        try:
            parse_segment(bytes(raw), "x")
            parse_reduced(bytes(raw), "x", 2)
            read += 1
        except FitsError:
            refused += 1
        longest = max(longest, time.perf_counter() - begin)
    return refused, read, longest


def main() -> None:
    rng = np.random.default_rng(20260101)
    number, count = int(sys.argv[1]), int(sys.argv[2])
    decoded = streams(number, rng)
    refused, read, longest = files(count, rng)
    print(json.dumps({"streams": number, "decoded": decoded, "files": count, "refused": refused,
                      "read": read, "largest_seconds": longest}))  # fmt: skip


if __name__ == "__main__":
    main()
