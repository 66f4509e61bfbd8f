"""Network file systems, other disks, full disks: a fetch works or says what is wrong."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preprocess.acquire.journal import merge_dead
from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import count_states, read_manifest
from sunpipe.errors import DataError
from tests.conftest import REPO
from tests.integration.test_acquire_refused import config
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_server import JsocServer


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    with JsocServer(tiny_archive(2, ("Br", "Bt"))) as server:
        yield server


def test_locks_are_asked_for_as_nfs_grants_them(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def nfs(handle: Any, operation: int) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        if operation & fcntl.LOCK_EX and access == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if operation & fcntl.LOCK_SH and access == os.O_WRONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", nfs)
    (root / "archive/journal").mkdir(parents=True)
    (root / "archive/journal/dead.jsonl").write_text("")
    assert merge_dead(root / "archive") == 1
    (root / "archive/journal/dead.jsonl").write_text("")
    assert fetch_stage(config(jsoc))["fetched"] == 4


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_disk_without_locks_is_one_line(
    root: Path, jsoc: JsocServer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(DataError, match=r"cannot be locked .*-o flock"):
        fetch_stage(config(jsoc))


def test_a_series_may_lie_on_another_disk(root: Path, jsoc: JsocServer) -> None:
    other = Path(f"/dev/shm/sunpipe-test-{os.getpid()}")
    (root / "archive").mkdir(parents=True)
    if not other.parent.is_dir() or os.stat(other.parent).st_dev == os.stat(root).st_dev:
        pytest.skip("there is no second disk")
    other.mkdir()
    try:
        (root / "archive" / SHARP).symlink_to(other)
        assert fetch_stage(config(jsoc))["fetched"] == 4
        assert len(list(other.rglob("*.fits"))) == 4
        assert list((root / "archive/.partial").iterdir()) == []
    finally:
        subprocess.run(["rm", "-r", str(other)], check=True)


def test_a_full_disk_names_the_file(root: Path, jsoc: JsocServer, tmp_path: Path) -> None:
    for where, body in jsoc.archive.bodies.items():
        jsoc.archive.bodies[where] = body + bytes(2880 * 40)
    path = tmp_path / "test.toml"
    path.write_text(
        f'name = "t"\n[fetch]\nsource = "jsoc"\nurl = "{jsoc.url}"\n[[query.requests]]\n'
        f'record_set = "{SHARP}[1]"\nsegments = ["Br", "Bt"]\n'
    )
    command = f'trap "" XFSZ; ulimit -f 60; exec {sys.executable} -m sunpipe fetch -c {path}'
    env = {**os.environ, "SUNPIPE_ROOT": str(root)}
    done = subprocess.run(["bash", "-c", command], cwd=REPO, env=env, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "File too large" in line
    assert "/.partial/" in line
    assert "Traceback" not in done.stderr
    assert count_states(read_manifest(root / "archive").values())["wanted"] == 4
