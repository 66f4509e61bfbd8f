"""Our decoder of chunks against HDF5's own, and what it does with damaged bytes."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import NDArray

from sunpipe.shards.decode import (
    BLOCK_WRONG,
    CHECKSUM_WRONG,
    FINE,
    MARGIN,
    MAX_BLOCK,
    decode_chunk,
    fletcher32,
    lz4_block,
)
from sunpipe.shards.sums import add_to_sums, image_sums

KINDS = ["zeros", "ones", "noise", "ramp", "sparse", "planes", "repeats"]


def content(kind: str, count: int, dtype: str) -> NDArray[np.generic]:
    rng = np.random.default_rng(count)
    values = {
        "zeros": np.zeros(count),
        "ones": np.full(count, -1.0),
        "noise": rng.integers(-120, 120, count),
        "ramp": np.arange(count) % 251 - 125,
        "sparse": np.where(rng.random(count) < 0.02, 99, 0),
        "planes": 64 * rng.integers(0, 2, count),
        "repeats": np.resize(rng.integers(-9, 9, 1 + count % 13), count),
    }[kind]
    return values.astype(dtype)


def chunk(path: Path, data: NDArray[np.generic]) -> bytes:
    """The bytes that HDF5 stores for one chunk."""
    with h5py.File(path, "w") as file:
        codec = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("x", data=data, chunks=data.shape, fletcher32=True, **codec)
        return bytes(file["x"].id.read_direct_chunk((0,) * data.ndim)[1])


def decode(raw: bytes, size: int, width: int) -> tuple[int, NDArray[np.uint8]]:
    """Decode between guard bytes that must stay as they are."""
    source = np.frombuffer(raw + b"\xa5" * MARGIN, np.uint8).copy()
    around = np.full(size + 128, 0x5A, np.uint8)
    scratch = np.full(MAX_BLOCK + MARGIN + 64, 0x5A, np.uint8)
    status = decode_chunk(source, len(raw), around[64 : 64 + size], scratch[:-64], width)
    assert (around[:64] == 0x5A).all()
    assert (around[64 + size :] == 0x5A).all()
    assert (scratch[-64:] == 0x5A).all()
    return status, around[64 : 64 + size]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_chunk_decodes_to_what_was_written(kind: str, dtype: str, tmp_path: Path) -> None:
    if kind == "ones" and dtype == "uint8":
        kind = "repeats"
    for count in (1, 7, 8, 9, 127, 128, 4096, 4097, 8192 + 1000, 3 * 64 * 64):
        data = content(kind, count, "int8" if dtype == "uint8" else dtype)
        status, found = decode(chunk(tmp_path / "x.h5", data), data.nbytes, data.itemsize)
        assert status == FINE
        assert found.tobytes() == data.tobytes()


def test_checksum_is_the_one_in_the_file(tmp_path: Path) -> None:
    for count in (1, 2, 3, 719, 720, 721, 16385, 16386, 100_001):
        for kind in ("zeros", "noise", "ramp"):
            data = content(kind, count, "int8").view(np.uint8)
            with h5py.File(tmp_path / "x.h5", "w") as file:
                file.create_dataset("x", data=data, chunks=(count,), fletcher32=True)
                raw = file["x"].id.read_direct_chunk((0,))[1]
            stored = int.from_bytes(raw[-4:], "little")
            assert int(fletcher32(data, count)) == stored


def test_a_flipped_bit_never_passes(tmp_path: Path) -> None:
    data = content("noise", 3 * 40 * 40, "int16")
    raw = chunk(tmp_path / "x.h5", data)
    rng = np.random.default_rng(5)
    for _ in range(2000):
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
        assert decode(bytes(damaged), data.nbytes, 2)[0] == CHECKSUM_WRONG


def signed(body: bytes) -> bytes:
    """A chunk whose checksum fits whatever it holds."""
    padded = np.frombuffer(body, np.uint8).copy()
    return body + int(fletcher32(padded, len(body))).to_bytes(4, "little")


def test_hostile_chunks_with_a_fitting_checksum_stay_inside_their_memory(tmp_path: Path) -> None:
    data = content("noise", 3 * 40 * 40, "int16")
    body = chunk(tmp_path / "x.h5", data)[:-4]
    rng = np.random.default_rng(6)
    seen = set()
    for turn in range(4000):
        damaged = bytearray(body)
        first = int(rng.integers(len(body))) if turn % 4 else int(rng.integers(24))
        for place in range(first, min(first + int(rng.integers(1, 9)), len(body))):
            damaged[place] = int(rng.choice([0, 1, 15, 16, 240, 255, rng.integers(256)]))
        cut = int(rng.integers(len(body))) if turn % 7 == 0 else len(body)
        seen.add(decode(signed(bytes(damaged[:cut])), data.nbytes, 2)[0])
    assert BLOCK_WRONG in seen
    assert CHECKSUM_WRONG not in seen


def test_random_bytes_are_no_lz4_block() -> None:
    rng = np.random.default_rng(7)
    around = np.full(4096 + MARGIN + 64, 0x5A, np.uint8)
    for turn in range(4000):
        count = int(rng.integers(1, 300))
        source = rng.integers(0, 256 if turn % 2 else 40, count + MARGIN, dtype=np.uint8)
        lz4_block(source, 0, count, around[: 4096 + MARGIN], 4096)
        assert (around[4096 + MARGIN :] == 0x5A).all()


def test_sums_of_an_image_are_the_documented_ones() -> None:
    rng = np.random.default_rng(8)
    for count in (0, 1, 3, 4, 31, 32, 33, 100, 4096, 70_001):
        data = rng.integers(0, 256, count, dtype=np.uint8)
        padded = np.concatenate([data, np.zeros(-count % 4, np.uint8)])
        words = padded.view("<u4").astype(np.uint64)
        weights = np.arange(len(words), 0, -1, dtype=np.uint64)
        assert image_sums(data).tolist() == [words.sum(), (words * weights).sum()]
        parts = np.zeros(2, np.uint64)
        for start in range(0, count, 1000):
            add_to_sums(data[start : start + 1000], parts)
        assert parts.tolist() == image_sums(data).tolist()


def test_sums_see_a_bit_a_swap_and_ones_for_zeros() -> None:
    data = np.arange(6000, dtype=np.int16).reshape(3, 40, 50)
    data[:, :4] = 0
    right = image_sums(data).tolist()
    flat = data.reshape(-1)
    for change in (slice(7, 8), slice(8, 10), slice(0, 100)):
        kept = flat[change].copy()
        flat[change] = ~kept
        assert image_sums(data).tolist() != right
        flat[change] = kept
    flat[2000:2002], flat[3000:3002] = flat[3000:3002].copy(), flat[2000:2002].copy()
    assert image_sums(data).tolist() != right
