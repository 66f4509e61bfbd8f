"""Atomic files and digests: nothing half-written ever carries its final name."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError

TEMPORARY_PREFIX = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the disk, the quota, the file's limit
STALE_AFTER_S = 24 * 3600.0  # nobody writes one file for a day


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Name a temporary sibling; those that killed writers left a day ago are removed."""
    for left in path.parent.glob(f"{TEMPORARY_PREFIX}{'?' * 12}-{path.name}"):
        with suppress(FileNotFoundError):  # its writer has just finished
            if time.time() - left.lstat().st_mtime > STALE_AFTER_S:
                _remove(left)
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_file(path: Path) -> None:
    """Flush one file's content to the device."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of a full disk name `path`; a copy names its source, a library nothing."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`; rename it to `path` if the block succeeds.

    The temporary file is removed when the block raises, so a full disk or an
    interrupt leaves nothing that looks complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with naming(path):
            yield temporary
            fsync_file(temporary)
        os.replace(temporary, path)
        fsync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step where the file system can, in three renames elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)
        if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), flag) == 0:
            return
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
    aside = _temporary(other)
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)


def replace_folder(new: Path, path: Path) -> None:
    """Give the complete folder `new` the name `path`; a folder that has it is removed."""
    replaced = path.exists()
    if replaced:
        _exchange(new, path)
    else:
        os.rename(new, path)
    fsync_directory(path.parent)
    if replaced:
        shutil.rmtree(new)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; rename it to `path` if the block succeeds.

    An existing folder at `path` is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
            for found in (*temporary.rglob("*"), temporary):
                if found.is_dir():
                    fsync_directory(found)
                else:
                    fsync_file(found)
        replace_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)


def read_json(path: Path) -> Any:
    """Read JSON from `path`; a missing, torn or ambiguous file is a `DataError`."""
    try:
        return json.loads(
            Path(path).read_text(encoding="utf-8"), object_pairs_hook=_refuse_duplicates
        )
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error})") from None
    except RecursionError:
        raise DataError(f"{path} is not valid JSON (nested too deeply)") from None


def plain_file(folder: Path, name: str) -> bool:
    """Whether `name`, if it is there, is a file or folder of its own inside `folder`.

    A link would have something outside read, and reading a pipe or device never ends.
    """
    parts = Path(name).parts
    try:
        modes = [os.lstat(folder.joinpath(*parts[: count + 1])).st_mode
                 for count in range(len(parts))]  # fmt: skip
    except OSError:
        return True  # told by who reads it
    if modes and stat.S_ISREG(modes[-1]):
        modes.pop()
    return all(map(stat.S_ISDIR, modes))


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value with sorted keys: an identity for configurations."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
