"""A disk that is full at any point of a checkpoint: the earlier ones stay, one line says it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.checkpoint_writer import Writer

POINTS = 20
NUMBERS = 12_000  # in the largest tensor
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000  # clone(2)
PRIVATE = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC, mount(2)


def tensors(value: float) -> dict[str, dict[str, torch.Tensor]]:
    stems = ("G", "D", "G_ema", "zero/G")
    return {stem: {"w": torch.full((NUMBERS,), value), "b": torch.ones(3)} for stem in stems}


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}  # fmt: skip


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Files of this process end at `size` bytes (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("point", range(POINTS))
def test_a_file_that_cannot_grow_leaves_the_earlier_checkpoint(tmp_path: Path, point: int) -> None:
    said: list[str] = []
    with Writer(tmp_path, 1, said.append) as writer:
        writer.save(1000, tensors(1.0), {})
        writer.wait()
        before = written(tmp_path)
        with file_limit(point * NUMBERS * 4 // POINTS):
            writer.save(2000, tensors(2.0), {})
            with pytest.raises(OSError, match="File too large") as caught:
                writer.wait()
        assert caught.value.filename == str(tmp_path / "kimg-000002.000")
        assert written(tmp_path) == before
        assert checkpoint.newest(tmp_path, said.append) == tmp_path / "kimg-000001.000"
        writer.save(2000, tensors(2.0), {})
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["kimg-000002.000"]
    assert len(said) == 2


def in_own_mounts(work: Callable[[], Any]) -> Any:
    """Result of `work` in a child that may mount for itself alone; None where none may."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            alone = NEW_MOUNTS if os.geteuid() == 0 else NEW_MOUNTS | NEW_USER
            may = libc.unshare(alone) == 0 and libc.mount(b"none", b"/", None, PRIVATE, None) == 0
            answer = json.dumps(work() if may else None)
        except BaseException:
            answer = json.dumps({"error": traceback.format_exc()})
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def fill_points(folder: Path) -> dict[str, Any] | None:
    """A file system in memory, with less and less room for a second checkpoint."""
    size = 1 << 20
    options = f"size={size}".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        return None
    run = folder / "checkpoints"
    checkpoint.save(run, 1000, tensors(1.0), {}, keep=1)
    before = written(run)
    free = os.statvfs(folder)
    room = free.f_bavail * free.f_frsize
    need = sum(len(content) for content in before.values())
    full, faults = 0, []
    for point in range(POINTS):
        ballast = folder / "ballast"
        ballast.write_bytes(b"\0" * (room - point * need // POINTS))
        try:
            checkpoint.save(run, 2000, tensors(2.0), {}, keep=1)
        except OSError as error:
            full += error.errno == errno.ENOSPC
            if error.filename != str(run / "kimg-000002.000"):
                faults.append(f"{point}: {error}")
        if written(run) != before:
            faults.append(f"{point}: {sorted(written(run))}")
        ballast.unlink()
    checkpoint.save(run, 2000, tensors(2.0), {}, keep=1)
    newest = checkpoint.newest(run, faults.append)
    return {"full": full, "faults": faults, "newest": newest and newest.name}


def test_a_full_file_system_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    found = in_own_mounts(lambda: fill_points(tmp_path))
    if found is None:
        pytest.skip("this user may not mount a file system for itself")
    assert found == {"full": POINTS, "faults": [], "newest": "kimg-000002.000"}
    assert not os.path.ismount(tmp_path)
