"""Reading from a file system that may need a moment: retries, and one clear line at the end."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sunpipe.errors import DataError

# Answers of a healthy file system: there is no such file. Any other may differ a second later.
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
Found = TypeVar("Found")


def patiently(
    read: Callable[[Path], Found], path: Path, seconds: float, final: tuple[int, ...] = NO_FILE
) -> Found:
    """What `read` makes of `path`, tried again for a while.

    Parameters
    ----------
    read : callable
        Takes `path`; has no effect when it fails.
    seconds : float
        How long errors may last.
    final : tuple of int
        Error numbers that are believed at once.

    Raises
    ------
    OSError
        The last error; unlike one of ``read(2)`` it names the file.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return read(path)
        except OSError as error:
            if error.errno in final or time.monotonic() >= end:
                raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        time.sleep(seconds / 20)


@contextmanager
def reading() -> Iterator[None]:
    """Make a file that cannot be read one clear line, on any rank."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror}); nothing was changed. See to its"
            " disk, network or permissions, then run the same command again"
        ) from None
