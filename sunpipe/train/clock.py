"""What the training loops share: intervals in images, memory, batches read ahead."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Batch = TypeVar("Batch")


def due(before: int, after: int, every_kimg: float) -> bool:
    """Whether a multiple of `every_kimg` lies in (before, after], both in images."""
    every = max(round(every_kimg * 1000), 1)
    return before // every != after // every


def peak_memory_bytes(device: torch.device) -> int:
    """Most bytes in use so far: of the GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def read_ahead(read: Callable[[int], Batch], start: int, batch: int) -> Iterator[Iterator[Batch]]:
    """Batches from `start` on; the next one is read while this one is used.

    Parameters
    ----------
    read : callable
        Takes the number of images shown so far. One thread calls it, so that it
        alone touches the HDF5 handles.
    start, batch : int
        Images shown so far, and per batch.
    """

    def serve(pool: ThreadPoolExecutor) -> Iterator[Batch]:
        nimg = start
        pending: Future[Batch] = pool.submit(read, nimg)
        while True:
            ready = pending.result()
            nimg += batch
            pending = pool.submit(read, nimg)
            yield ready

    with ThreadPoolExecutor(1) as pool:
        try:
            yield serve(pool)
        finally:
            pool.shutdown(cancel_futures=True)
