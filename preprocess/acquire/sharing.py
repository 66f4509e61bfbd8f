"""Several processes in one archive: who may tidy up, and who asks."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preprocess.acquire.journal import FOLDER, merge_dead
from sunpipe.lock import lock_file, sweep
from sunpipe.stage import log


@contextmanager
def working(archive: Path) -> Iterator[None]:
    """Share the archive with others that write into it.

    Journals of dead processes are taken into the manifest. Who is alone also
    removes the temporary files of a process that died, which would be those of
    a living one otherwise; to look for them takes long in a large archive, so
    that it is done only after a death.
    """
    (archive / FOLDER).mkdir(parents=True, exist_ok=True)
    unswept = archive / FOLDER / ".unswept"
    with open(archive / ".lock", "a+") as handle:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            log("another process is working in this archive; the two share the work")
            lock_file(handle, fcntl.LOCK_SH)
            alone = False
        if merge_dead(archive):
            unswept.touch()
        if alone:
            sweep(archive / FOLDER)
            if unswept.exists():
                sweep(archive)
                unswept.unlink()
            lock_file(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def asking(archive: Path) -> Iterator[None]:
    """One query of an archive at a time; others wait."""
    with open(archive / ".query.lock", "a+") as handle:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("another process is asking the archive; waiting for it")
            lock_file(handle, fcntl.LOCK_EX)
        yield
