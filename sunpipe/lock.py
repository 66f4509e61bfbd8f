"""One writer at a time: a lock that the kernel drops when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from sunpipe.errors import DataError
from sunpipe.files import TEMPORARY_PREFIX
from sunpipe.paths import Layout
from sunpipe.provenance import now

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def lock_file(handle: IO[Any], operation: int) -> None:
    """``flock`` on an open file.

    On NFS an exclusive lock needs a file that is open for writing, a shared one
    a file that is open for reading: open it for both.

    Raises
    ------
    BlockingIOError
        When another process has it and `operation` includes ``LOCK_NB``.
    DataError
        When the file system has no locks.
    """
    try:
        fcntl.flock(handle, operation)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise DataError(f"{handle.name} cannot be locked ({error.strerror}); mount the file system"
                        " with locks (Lustre: -o flock; NFS: a running lockd or -o local_lock=none)"
                        " or choose another with SUNPIPE_ROOT") from None  # fmt: skip


def owner() -> str:
    """Who this is, for those who come to a lock: job, process, machine, since when."""
    from sunpipe.stop import slurm_job

    job = slurm_job()
    return (f"{f'job {job}, ' if job else ''}process {os.getpid()} on {socket.gethostname()}, since"
            f" {now()}")  # fmt: skip


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it says who holds it.

    The kernel drops the lock when its holder dies: what the file says is for people,
    and only of use while somebody holds it.

    Raises
    ------
    DataError
        When another process holds it; `what` says what that process is doing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            line = "".join(c for c in handle.readline(300).strip() if c.isprintable())
            who = f" ({line})" if line else ""
            raise DataError(f"another process is {what}{who}; wait until it has finished") from None
        handle.truncate(0)
        handle.write(owner() + "\n")
        handle.flush()
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
