"""Measured quantities of the archive's tiles, kept in slabs so that a stop costs little."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_path, digest
from sunpipe.physics.images import measure_images
from sunpipe.shards.reader import ShardReader
from sunpipe.shards.schema import dataset_id
from sunpipe.ticks import Ticks

Floats = NDArray[np.float64]
SLAB = 2048  # tiles in a file
AT_ONCE = 2**22  # pixels of one channel that are measured together


def _key(reader: ShardReader, rows: NDArray[np.int64], names: list[str]) -> str:
    """Identity of what is measured: dataset, rows, quantities."""
    order = hashlib.sha256(np.ascontiguousarray(rows, "<i8").tobytes()).hexdigest()
    return digest({"dataset": dataset_id(reader.info), "rows": order, "names": names})[:16]


def _kept(path: Path, shape: tuple[int, int]) -> Floats | None:
    """A slab of an earlier run; None when it is missing, torn or of another shape."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float64 else None


def _save(path: Path, values: Floats) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, values, allow_pickle=False)


def measured(
    folder: Path, reader: ShardReader, rows: NDArray[np.int64], names: list[str],
    poll: Callable[[], None],
) -> Floats:  # fmt: skip
    """Quantities of dataset rows, read from `folder` where they were measured before.

    Parameters
    ----------
    folder : Path
        Slabs stand in ``measured-<key>`` in it, and replace those of another key.
    reader : ShardReader
    rows : ndarray (N,)
    names : list of str
    poll : callable
        Called before every batch; may raise to end the work.

    Returns
    -------
    ndarray (N, Q)
        In the units of `sunpipe.physics.measurable.unit`, NaN where undefined.
    """
    if not names:
        return np.zeros((len(rows), 0))
    slabs = folder / f"measured-{_key(reader, rows, names)}"
    for old in folder.glob("measured-*"):
        if old != slabs:
            shutil.rmtree(old, ignore_errors=True)
    pixel_cm = reader.pixel_cm  # reads the table: once
    starts = range(0, len(rows), SLAB)
    parts: list[Floats] = []
    with Ticks(len(starts), "slabs measured") as ticks:
        for start in starts:
            chosen = rows[start : start + SLAB]
            path = slabs / f"{start // SLAB:05d}.npy"
            found = _kept(path, (len(chosen), len(names)))
            if found is None:
                found = _measure(reader, chosen, pixel_cm[chosen], names, poll)
                _save(path, found)
            parts.append(found)
            ticks.tick()
    return np.concatenate(parts)


def _measure(
    reader: ShardReader, rows: NDArray[np.int64], pixel_cm: Floats, names: list[str],
    poll: Callable[[], None],
) -> Floats:  # fmt: skip
    step = max(1, AT_ONCE // reader.info.resolution**2 // 16)
    parts = []
    for start in range(0, len(rows), step):
        poll()
        some = slice(start, start + step)
        with torch.inference_mode():
            images = torch.from_numpy(reader.images(rows[some]))
            if not bool(images.isfinite().all()):
                raise DataError(f"{reader.folder} holds images that are not finite; run verify")
            pixel = torch.from_numpy(pixel_cm[some])
            parts.append(measure_images(images, reader.info.channels, pixel, names).numpy())
    return np.concatenate(parts).astype(np.float64)


def units(names: list[str]) -> dict[str, Any]:
    """Unit of each quantity, also of ``|X|``."""
    from sunpipe.physics.measurable import unit

    return {name: unit(name.strip("|")) for name in names}
