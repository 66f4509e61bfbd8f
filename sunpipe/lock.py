"""One writer at a time: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sunpipe.errors import DataError
from sunpipe.files import TEMPORARY_PREFIX
from sunpipe.paths import Layout


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    Raises
    ------
    DataError
        When another process holds it; `what` says what that process is doing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is {what}; wait until it has finished") from None
        yield


def running(layout: Layout, stage: str, name: str) -> AbstractContextManager[None]:
    """Hold the lock of one stage of one experiment: one process at a time does it."""
    path = layout.root / "locks" / f"{stage}-{name}.lock"
    return exclusive(path, f"running sunpipe {stage} for {name}")


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed writer left. Call it under the lock."""
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        if path.is_file():
            path.unlink()
