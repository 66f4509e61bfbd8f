"""Writing HDF5 files that survive a full disk: atomic, and one clear error afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.files import atomic_path

if TYPE_CHECKING:
    import io

    import h5py


class Sink:
    """A file for HDF5 to write to that keeps the first error instead of raising it.

    HDF5 does not survive a full disk: closing the file writes again, fails
    again, and may end the process. So it is told that all is well, and
    `check` raises the error where it can be handled. So does a ctrl-C that
    arrives while HDF5 writes. The file is unbuffered: a buffer would be written,
    and fail, when HDF5 seeks or reads.
    """

    def __init__(self, handle: io.FileIO) -> None:
        self._handle = handle
        self.error: OSError | KeyboardInterrupt | None = None
        self.seek = handle.seek
        self.tell = handle.tell
        self.read = handle.read  # h5py takes what has it for a file
        self.readinto = handle.readinto

    def write(self, data: memoryview) -> int:
        """Write all of it, unless a write failed before."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[self._handle.write(rest) :]
        except (OSError, KeyboardInterrupt) as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            if self.error is None:
                return self._handle.truncate(size)
        except (OSError, KeyboardInterrupt) as error:
            self.error = error
        return size or 0

    def flush(self) -> None:
        """Nothing waits in a buffer."""

    def check(self) -> None:
        """Raise the error that was kept."""
        if isinstance(self.error, KeyboardInterrupt):
            raise self.error
        if self.error is not None:
            number = self.error.errno or errno.EIO
            raise OSError(number, os.strerror(number)) from None


@contextmanager
def hdf5_sink(path: Path, **options: Any) -> Iterator[tuple[h5py.File, Sink]]:
    """`new_hdf5` with the sink, for a long write that asks it now and then with `Sink.check`."""
    import h5py

    with atomic_path(path) as temporary, open(temporary, "w+b", buffering=0) as handle:
        sink = Sink(handle)
        try:
            with h5py.File(sink, "w", **options) as file:
                yield file, sink
        finally:
            sink.check()  # whatever HDF5 says after a failed write comes from that


@contextmanager
def new_hdf5(path: Path, **options: Any) -> Iterator[h5py.File]:
    """Open a new HDF5 file that gets its name when the block succeeds.

    Parameters
    ----------
    path : Path
        An existing file is replaced.
    **options
        Of `h5py.File`.

    Raises
    ------
    OSError
        When the file could not be written, with the path and the system's
        reason; nothing is left behind.
    """
    with hdf5_sink(path, **options) as (file, _):
        yield file
