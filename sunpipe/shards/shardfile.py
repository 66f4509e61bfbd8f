"""One open shard: where each image lies, and reading it into memory of the caller.

HDF5 is asked once where the images are; after that the operating system reads
and our own code decodes. Nothing of HDF5 stays open: its handles must not be
shared across a fork and its lock admits one thread at a time, while ``preadv``
has neither state nor lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.shards.guard import SUMS, check_shard

PIECE = 1 << 19  # bytes that stay in the second cache level between reading and adding up
_own = threading.local()
# h5py's lock stays locked in a child that is forked while another thread is inside h5py: a fork
# waits until nobody is. h5py itself takes its lock at a fork, and what was registered last is
# taken first: h5py is imported above, so that a fork never holds its lock while it waits for ours.
_gate, _in_hdf5 = threading.Lock(), threading.Lock()


@contextmanager
def _inside_hdf5() -> Iterator[None]:
    """One thread at a time, in turn: through a gate, so that a fork is not kept waiting."""
    with _gate:
        _in_hdf5.acquire()
    try:
        yield
    finally:
        _in_hdf5.release()


def _before_fork() -> None:
    _gate.acquire()
    _in_hdf5.acquire()


def _after_fork() -> None:
    _in_hdf5.release()
    _gate.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@dataclass(frozen=True)
class Member:
    """Where the images of one dataset lie in the file.

    Attributes
    ----------
    shape : tuple of int
        Of one image.
    dtype : numpy.dtype
    offsets, sizes : ndarray of int64, shape (N,)
        First byte in the file, and bytes.
    sums : ndarray of uint64, shape (N, 2), or None
        Of uncompressed images; None where HDF5's chunks are checked.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    sums: NDArray[np.uint64] | None

    @property
    def nbytes(self) -> int:
        """Bytes of one image in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def _member(data: h5py.Dataset, sums: NDArray[np.uint64] | None) -> Member:
    shape, count = data.shape[1:], len(data)
    size = int(np.prod(shape)) * data.dtype.itemsize
    if sums is not None:
        offsets = data.id.get_offset() + size * np.arange(count, dtype=np.int64)
        return Member(shape, data.dtype, offsets, np.full(count, size, np.int64), sums)
    offsets, sizes = np.zeros((2, count), np.int64)

    def note(chunk: Any) -> None:
        if chunk.filter_mask == 0:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset
            sizes[chunk.chunk_offset[0]] = chunk.size

    data.id.chunk_iter(note)
    return Member(shape, data.dtype, offsets, sizes, None)


def _space(size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Memory of this thread for the bytes of a chunk and for one decoded block."""
    from sunpipe.shards.decode import MARGIN, MAX_BLOCK

    if getattr(_own, "size", -1) < size:
        _own.raw = np.zeros(size + MARGIN, np.uint8)
        _own.block = np.zeros(MAX_BLOCK + MARGIN, np.uint8)
        _own.size = size
    return _own.raw, _own.block


class ShardFile:
    """An open shard. Threads and forked processes may read from it at the same time.

    Parameters
    ----------
    handle : int
        Descriptor of the file, open for reading; closed with this object.
    path : Path
        For messages.

    Raises
    ------
    DataError
        When the file is not a shard of ours.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self.path = handle, path
        self.members = self._find()
        self._end = os.fstat(handle).st_size

    def _find(self) -> dict[str, Member]:
        try:
            with (
                _inside_hdf5(),
                open(self._handle, "rb", buffering=0, closefd=False) as raw,
                h5py.File(raw, "r") as file,
            ):
                check_shard(file, self.path.name)
                sums = file[SUMS][:] if SUMS in file else None
                return {"images": _member(file["images"], sums),
                        "mask": _member(file["mask"], None)}  # fmt: skip
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(f"cannot open {self.path}: {error}; run sunpipe verify") from None

    def __del__(self) -> None:
        if getattr(self, "_handle", -1) >= 0:
            os.close(self._handle)
            self._handle = -1

    def read_into(self, name: str, position: int, target: NDArray[Any], check: bool = True) -> None:
        """Read one image or mask.

        Parameters
        ----------
        name : str
            ``images`` or ``mask``.
        position : int
            In the shard.
        target : ndarray
            C-contiguous, of the member's shape and stored type.
        check : bool
            Compare an uncompressed image with its sums. Chunks are always checked.

        Raises
        ------
        DataError
            Names the file, the image and what is wrong with it.
        """
        member = self.members[name]
        if not 0 <= position < len(member.offsets):
            raise DataError(f"{self.path} has {len(member.offsets)} images, none at {position}")
        if target.shape != member.shape or target.dtype != member.dtype:
            raise DataError(
                f"{self.path} holds {member.dtype} images of {member.shape}, but"
                f" {target.dtype} of {target.shape} are expected"
            )
        flat = target.reshape(-1).view(np.uint8)
        assert np.shares_memory(flat, target), "the target is not contiguous"
        if member.sums is None:
            fault = self._chunk(member, position, flat)
        else:
            fault = self._plain(member, position, flat, check)
        if fault:
            what = "image" if name == "images" else "the mask of image"
            raise DataError(
                f"{self.path} is damaged at {what} {position} ({fault}); run sunpipe verify"
            )

    def _fill(self, target: NDArray[np.uint8], offset: int) -> bool:
        """Read until `target` is full; False at the end of the file."""
        rest = target.data
        while rest:
            got = os.preadv(self._handle, [rest], offset)
            if got == 0:
                return False
            rest, offset = rest[got:], offset + got
        return True

    def _chunk(self, member: Member, position: int, flat: NDArray[np.uint8]) -> str:
        from sunpipe.shards.decode import FAULTS, decode_chunk

        offset, size = int(member.offsets[position]), int(member.sizes[position])
        if size == 0 or size > 2 * len(flat) + 4096 or offset + size > self._end:
            return "its chunk is missing or cut off"
        raw, block = _space(size)
        if not self._fill(raw[:size], offset):
            return "the file is cut off"
        return FAULTS[decode_chunk(raw, size, flat, block, member.dtype.itemsize)]

    def _plain(self, member: Member, position: int, flat: NDArray[np.uint8], check: bool) -> str:
        from sunpipe.shards.sums import add_to_sums

        assert member.sums is not None
        start, sums = int(member.offsets[position]), np.zeros(2, np.uint64)
        for place in range(0, len(flat), PIECE):
            piece = flat[place : place + PIECE]
            if not self._fill(piece, start + place):
                return "the file is cut off"
            if check:
                add_to_sums(piece, sums)
        fits = not check or bool((sums == member.sums[position]).all())
        return "" if fits else "its checksum is wrong"


def open_shard(path: Path) -> ShardFile:
    """Open a shard by its path.

    Raises
    ------
    DataError
        When it is not there or not a shard of ours.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror}; run sunpipe verify") from None
    return ShardFile(handle, path)
