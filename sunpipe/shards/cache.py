"""Copies of shards on a disk of the node: shared by its ranks, checked, bounded in size.

A copy is named by the SHA-256 of its content, which is computed while it is
made: it can neither be stale nor of another dataset. Who reads a copy holds a
shared lock on it. When room is needed, copies go that are neither locked nor
wanted by this process; so a dataset larger than the cache keeps the shards that
fit and reads the rest where they are. The kernel drops all locks of a process
that dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sunpipe.errors import DataError, UsageError
from sunpipe.files import TEMPORARY_PREFIX, atomic_path
from sunpipe.shards.shardfile import ShardFile

FOLDER_VARIABLE = "SUNPIPE_CACHE"
LIMIT_VARIABLE = "SUNPIPE_CACHE_GB"
LOCKS = 64  # files; two shards that share one are copied one after the other
STEP = 8 << 20
SPARE = 0.05  # share of the disk that is left to others


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[bool]:
    """Hold the lock file `path`; yields False when `how` has LOCK_NB and another holds it."""
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            yield False
            return
        yield True


class NodeCache:
    """A folder of copies.

    Parameters
    ----------
    folder : Path
        On a disk of this node; made if missing, for this user alone.
    limit_bytes : int, optional
        All copies together; by default what the disk holds, but 5 %.
    say : callable
        Takes the one message that is due when a shard cannot be copied.

    Raises
    ------
    UsageError
        When others could write to the folder: its content is trusted.
    """

    def __init__(
        self, folder: Path, limit_bytes: int | None = None, say: Callable[[str], None] = _print
    ) -> None:
        self.folder, self.say, self.refused = Path(folder), say, ""
        self._wanted: set[str] = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            about = self.folder.lstat()
            disk = shutil.disk_usage(self.folder)
        except OSError as error:
            raise UsageError(f"node cache {folder}: {error.strerror}") from None
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
            raise UsageError(
                f"node cache {folder} is not a folder that only you can write to;"
                f" name another in {FOLDER_VARIABLE}"
            )
        self.limit = int(disk.total * (1 - SPARE)) if limit_bytes is None else limit_bytes

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.h5"

    def has(self, digest: str) -> bool:
        """Whether there is a copy of the shard with this SHA-256."""
        return self._path(digest).is_file()

    def open(self, digest: str) -> ShardFile | None:
        """The copy, held against eviction while it is open; None if it has just gone."""
        path = self._path(digest)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink == 0:
            os.close(handle)
            return None
        with suppress(OSError):
            os.utime(handle)  # the time of its last use decides what goes first
        try:
            return ShardFile(handle, path)
        except DataError as error:
            self.drop(digest, str(error))
            return None

    def drop(self, digest: str, why: str) -> None:
        """Remove a copy that cannot be read, and say so."""
        self.say(
            f"node cache: {why}; the copy is removed, the shard is read where it was published"
        )
        self._path(digest).unlink(missing_ok=True)

    def add(self, source: Path, digest: str, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Copy a shard, unless it is here or another process is copying it.

        Parameters
        ----------
        source : Path
            The published shard.
        digest : str
            Its SHA-256 in ``dataset.json``.
        stopped : callable
            Polled while copying; when true, nothing is left behind.

        Returns
        -------
        bool
            Whether the copy is here now. When the disk or the limit is full or
            the disk fails, one message says so and shards are read where they are.

        Raises
        ------
        DataError
            When `source` is not what was published.
        """
        self._wanted.add(digest)
        if self.refused:
            return self.has(digest)
        lock = self.folder / f"lock-{int(digest[:8], 16) % LOCKS:02d}"
        try:
            with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
                if mine and not self.has(digest):
                    self._copy(source, digest, stopped)
        except InterruptedError:
            return False
        except OSError as error:
            self.refused = error.strerror or str(error)
            self.say(
                f"node cache {self.folder}: {self.refused} at {source.name}; shards that are not"
                f" there are read from {source.parent}"
            )
        return self.has(digest)

    def _copy(self, source: Path, digest: str, stopped: Callable[[], bool]) -> None:
        seen = hashlib.sha256()
        with ExitStack() as held, open(source, "rb") as there:
            size = os.fstat(there.fileno()).st_size
            with atomic_path(self._path(digest)) as temporary:
                here = held.enter_context(self._reserve(temporary, size))  # until it has its name
                while block := there.read(STEP):
                    if stopped():
                        raise InterruptedError
                    seen.update(block)
                    rest = memoryview(block)
                    while rest:
                        rest = rest[here.write(rest) :]
                here.truncate(size)
                if seen.hexdigest() != digest:
                    raise DataError(
                        f"{source} is not what was published (SHA-256); run sunpipe verify"
                    )

    def _reserve(self, path: Path, size: int) -> io.FileIO:
        """A new file of `size` bytes, locked: a file without lock has lost its writer."""
        with _locked(self.folder / "room", fcntl.LOCK_EX):
            self._make_room(size)
            here = io.FileIO(path, "x")
            try:
                fcntl.flock(here, fcntl.LOCK_EX)
                os.posix_fallocate(here.fileno(), 0, max(size, 1))
            except BaseException:
                here.close()
                raise
            return here

    def _make_room(self, size: int) -> None:
        """Remove copies that nobody reads or wants, the longest unused first, until `size` fits."""
        files = []
        for path in self.folder.glob("*.h5"):
            with suppress(FileNotFoundError):
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
        used = sum(each[1] for each in files)
        for _, length, path in sorted(files):
            if path.stem in self._wanted:
                continue
            left = path.name.startswith(TEMPORARY_PREFIX)
            free = shutil.disk_usage(self.folder).free
            if not left and used + size <= self.limit and free >= size:
                break
            if self._remove_unused(path):
                used -= length
        if used + size > self.limit:
            raise OSError(0, f"its limit of {self.limit / 1e9:.3g} GB is reached")

    @staticmethod
    def _remove_unused(path: Path) -> bool:
        with suppress(FileNotFoundError), open(path, "rb") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            path.unlink(missing_ok=True)
        return True

    def fill(
        self, shards: Iterable[tuple[Path, str]], stopped: Callable[[], bool] = lambda: False
    ) -> int:
        """Copy shards that are not here; ranks of a node that call it share the work.

        Parameters
        ----------
        shards : iterable of (Path, str)
            Published file and its SHA-256.
        stopped : callable
            Ends the filling when true.

        Returns
        -------
        int
            How many of them are here now.
        """
        here, missing = 0, list(shards)
        self._wanted.update(digest for _, digest in missing)
        while missing and not stopped():
            # a second pass for those whose lock was held for another shard
            left = [each for each in missing if stopped() or not self.add(*each, stopped)]
            here += len(missing) - len(left)
            if len(left) == len(missing):
                break
            missing = left
        return here


def node_cache() -> NodeCache | None:
    """The cache that ``$SUNPIPE_CACHE`` names, bounded by ``$SUNPIPE_CACHE_GB``; None without.

    Raises
    ------
    UsageError
        When the folder cannot be used or the bound is no number of gigabytes.
    """
    folder, limit = os.environ.get(FOLDER_VARIABLE), os.environ.get(LIMIT_VARIABLE)
    if not folder:
        return None
    try:
        size = None if not limit else float(limit)
    except ValueError:
        size = -1.0
    if size is not None and not 0 < size < 1e9:
        raise UsageError(f"{LIMIT_VARIABLE}={limit} is not a number of gigabytes")
    return NodeCache(Path(folder).expanduser(), None if size is None else int(size * 1e9))
