"""A file that is on its way: its bytes so far, and the right to bring it.

``archive/.partial/<digest of record and segment>.part``. Who holds its lock
brings the file; all others leave it alone. The bytes stay when a transfer
breaks off or its process dies, with a note of what they belong to beside them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sunpipe.files import atomic_path, fsync_directory, naming
from sunpipe.lock import lock_file

FOLDER = ".partial"
# a series folder may be a link to another disk, and not every file system knows links
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Partial:
    """Bytes of one file so far; use `lease`.

    Attributes
    ----------
    path : Path
    note : dict
        ``url``, ``total`` bytes and ``validator`` (ETag or Last-Modified) of the
        transfer that the bytes come from; empty when they are good for nothing.
    """

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path = path
        self.handle = handle
        self._note_path = path.with_suffix(".json")
        self.note: dict[str, object] = {}
        try:
            note = json.loads(self._note_path.read_text(encoding="utf-8"))
            self.note = note if isinstance(note, dict) else {}
        except (OSError, ValueError):  # none, or torn by a kill: begin again
            self.restart()

    def size(self) -> int:
        """Bytes so far."""
        self.handle.flush()
        return os.fstat(self.handle.fileno()).st_size

    def restart(self, **note: object) -> None:
        """Forget the bytes and note what the next ones belong to."""
        self._note_path.unlink(missing_ok=True)
        self.handle.flush()
        self.handle.truncate(0)
        self.handle.seek(0)
        self.note = note
        if note:
            with naming(self._note_path):
                self._note_path.write_text(json.dumps(note), encoding="utf-8")

    def write(self, block: bytes) -> None:
        """Append bytes; a full disk is an error that names the file."""
        with naming(self.path):
            left = memoryview(block)
            while left:  # unbuffered: a kill leaves what came so far, and a short write is told
                left = left[self.handle.write(left) :]

    def publish(self, target: Path) -> None:
        """Give the file its name; the lease stays until the block of `lease` ends."""
        self.handle.flush()
        with atomic_path(target) as temporary:
            try:
                os.link(self.path, temporary)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                shutil.copyfile(self.path, temporary)
            self._renew()

    def _renew(self) -> None:
        """Put an empty file, locked as well, in the place of the one that has its name now.

        A file that only moved would take the lock along, and another process
        could begin before this one has noted what it brought.
        """
        fresh = self.path.with_suffix(".new")
        handle = open(fresh, "ab+", buffering=0)  # noqa: SIM115, open until `lease` ends
        lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(fresh, self.path)
        self._note_path.unlink(missing_ok=True)
        self.note = {}
        self.handle.close()
        self.handle = handle

    def forget(self) -> None:
        """Remove what is left of it."""
        self._note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def partial_path(archive: Path, record: str, segment: str) -> Path:
    """Where the bytes of a segment are while it is on its way."""
    name = hashlib.sha256(f"{record}{{{segment}}}".encode()).hexdigest()[:24]
    return archive / FOLDER / f"{name}.part"


def sweep_empty(archive: Path) -> None:
    """Remove what a killed process left without bytes. Call it when nobody else is at work."""
    for path in (archive / FOLDER).glob("*"):
        if path.suffix == ".new":  # its .part goes on
            path.unlink()
        elif path.suffix == ".part" and not path.stat().st_size:
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()


def _is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def lease(archive: Path, record: str, segment: str) -> Iterator[Partial | None]:
    """The right to bring one segment; None when another process has it."""
    path = partial_path(archive, record, segment)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        fsync_directory(archive)
    while True:
        with open(path, "ab+", buffering=0) as handle:
            try:
                lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if not _is_at(handle, path):  # published or removed between opening and locking
                continue
            found = Partial(path, handle)
            try:
                yield found
            finally:
                with found.handle:
                    if _is_at(found.handle, path) and not found.size():
                        found.forget()
            return
