"""Batches of stored images, read ahead by threads, in an order that needs no state.

Reading and decoding hold no lock of Python or of HDF5, so threads are enough:
no process is forked, no batch is copied between processes.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.shards.order import rank_part
from sunpipe.shards.reader import ShardReader

MAX_THREADS = 4  # at 1.5 GB/s each more than a GPU takes


def default_threads() -> int:
    """As many as the process has cores, 4 at most."""
    return max(1, min(MAX_THREADS, len(os.sched_getaffinity(0))))


def to_physical(stored: torch.Tensor, scale: float | Sequence[float]) -> torch.Tensor:
    """Stored numbers to physical units, on the device they are on.

    Equal to `sunpipe.shards.cut.restore` to the bit.

    Parameters
    ----------
    stored : Tensor, shape (B, C, H, W)
        int16, float16 or float32.
    scale : float, or one for each channel
        ``DatasetInfo.scale``.

    Returns
    -------
    Tensor of float32, shape (B, C, H, W)
    """
    factor = torch.as_tensor(scale, dtype=torch.float32, device=stored.device)
    return stored.to(torch.float32) * (factor.reshape(-1, 1, 1) if factor.ndim else factor)


@dataclass(frozen=True)
class Batch:
    """One rank's part of a batch, on the CPU.

    Attributes
    ----------
    nimg : int
        Images that were shown before it, by all ranks.
    rows : ndarray of int64, shape (B,)
        Dataset rows.
    images : Tensor, shape (B, C, H, W)
        As stored; see `to_physical`.
    masks : Tensor of bool, shape (B, H, W)
        True where valid; (B, 0, 0) unless the loader was asked for masks.
    """

    nimg: int
    rows: NDArray[np.int64]
    images: torch.Tensor
    masks: torch.Tensor


class _Memory:
    """Buffers that come back when the tensor over them is gone: new pages cost as much as reading.

    Pinned ones are torch's, which keeps them until copies to the GPU are done.
    """

    def __init__(self, pin: bool) -> None:
        self._pin, self._free = pin, deque[NDArray[Any]]()

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        if self._pin:
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            return torch.empty(shape, dtype=kind, pin_memory=True)
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            whole = self._free.pop()
        except IndexError:
            whole = np.empty(0, np.uint8)
        if whole.nbytes != size:
            whole = np.empty(size, np.uint8)
        lent = whole[:]
        weakref.finalize(lent, self._free.append, whole).atexit = False
        return torch.from_numpy(lent).view(torch.from_numpy(np.empty(0, dtype)).dtype).view(shape)


@dataclass
class _Pending:
    batch: Batch
    parts: list[Future[None]]


class Loader:
    """Iterates over batches from `start` on, for ever. Use it as a context manager.

    Parameters
    ----------
    reader : ShardReader
        Its `rows` are shown; its `cache`, if any, is filled meanwhile.
    seed, start, batch : int
        Of the order; images shown so far by all ranks; images per batch of all ranks.
    rank, world : int
        Which part of each batch is read, see `rank_part`.
    masks : bool
        Read the masks as well.
    threads : int, optional
        That read and decode; see `default_threads`.
    ahead : int
        Batches that are read while one is used.
    pin : bool
        Put batches into pinned memory, for asynchronous copies to a GPU.

    Attributes
    ----------
    wait_s : float
        Seconds that `__next__` has waited for data.

    Raises
    ------
    DataError
        From `__next__`: names the shard and image that cannot be read.
    """

    def __init__(
        self, reader: ShardReader, seed: int, start: int, batch: int, *, rank: int = 0,
        world: int = 1, masks: bool = False, threads: int | None = None, ahead: int = 2,
        pin: bool = False,
    ) -> None:  # fmt: skip
        self.reader, self.wait_s = reader, 0.0
        self._order = (seed, batch, rank, world)
        self._nimg, self._masks, self._ahead = start, masks, max(ahead, 1)
        self._threads = default_threads() if threads is None else threads
        self._image_memory, self._mask_memory = _Memory(pin), _Memory(pin)
        self._pending: deque[_Pending] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()
        self._filling: Future[int] | None = None
        self._filler: ThreadPoolExecutor | None = None
        rank_part(len(reader), seed, start, batch, rank, world)  # refuses what does not divide

    def __enter__(self) -> Loader:
        self._pool = ThreadPoolExecutor(self._threads, "sunpipe-read")
        cache = self.reader.cache
        if cache is not None:
            shards = [(self.reader.path(each), self.reader.digest(each))
                      for each in self.reader.shards()]  # fmt: skip
            self._filler = ThreadPoolExecutor(1, "sunpipe-cache")
            self._filling = self._filler.submit(cache.fill, shards, self._stop.is_set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stop.set()
        for pool in (self._pool, self._filler):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def _submit(self) -> None:
        assert self._pool is not None, "use the loader in a with statement"
        seed, size, rank, world = self._order
        nimg, self._nimg = self._nimg, self._nimg + size
        rows = self.reader.rows[rank_part(len(self.reader), seed, nimg, size, rank, world)]
        count, shape = len(rows), self.reader.shape
        images = self._image_memory.take((count, *shape), self.reader.dtype)
        side = shape[1:] if self._masks else (0, 0)
        masks = self._mask_memory.take((count, *side), np.dtype(np.uint8))
        step = max(1, -(-count // (4 * self._threads)))  # a few parts per thread, to end together
        parts = [
            self._pool.submit(
                self._read, rows, images, masks, range(first, min(first + step, count))
            )
            for first in range(0, count, step)
        ]
        self._pending.append(_Pending(Batch(nimg, rows, images, masks.view(torch.bool)), parts))

    def _read(
        self, rows: NDArray[np.int64], images: torch.Tensor, masks: torch.Tensor,
        places: range,
    ) -> None:  # fmt: skip
        for place in places:
            self.reader.read_into("images", int(rows[place]), images[place].numpy())
            if self._masks:
                target = masks[place].numpy()
                self.reader.read_into("mask", int(rows[place]), target)
                np.not_equal(target, 0, out=target)

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        while len(self._pending) <= self._ahead:
            self._submit()
        ready = self._pending.popleft()
        for part in ready.parts:
            part.result()
        if self._filling is not None and self._filling.done():
            self._filling.result()  # a shard that is not what was published ends the run
            self._filling = None
        self.wait_s += time.perf_counter() - asked
        return ready.batch
