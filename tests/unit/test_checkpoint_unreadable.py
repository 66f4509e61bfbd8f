"""A file system that fails for a while costs no checkpoint, and one clear line at most."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.checkpoint_writer import Writer
from sunpipe.errors import DataError
from sunpipe.patient import patiently
from sunpipe.run import Run

LATER = "elsewhere"


@pytest.fixture(autouse=True)
def short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LAG_S", 0.05)


def save(folder: Path, nimg: int, keep: int = 3) -> Path:
    named = {"G": {"w": torch.full((3,), float(nimg))}}
    return checkpoint.save(folder, nimg, named, {}, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails(
    function: Callable[..., Any], number: int, times: int, of: str = ""
) -> Callable[..., Any]:
    """`function` that fails the first so many times, without naming the file, as read(2) does."""
    left = [times]

    def failing(path: Path, *more: Any) -> Any:
        if of in str(path) and left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return function(path, *more)

    return failing


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "00003-mine/checkpoints"
    for nimg in (1_000_000, 2_000_000, 3_000_000):
        save(folder, nimg)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    for path, content in before.items():
        assert path.read_bytes() == content


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize("reader", ["sha256", "read_json"])
def test_what_cannot_be_read_is_no_reason_to_start_from_an_older_one(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, reader: str
) -> None:
    broken = fails(getattr(checkpoint, reader), number, 10**9)
    monkeypatch.setattr(checkpoint, reader, broken)
    said: list[str] = []
    with pytest.raises(DataError) as caught:
        checkpoint.newest(run_folder, said.append)
    assert f"{os.strerror(number)}); nothing was changed" in str(caught.value)
    assert str(run_folder / "kimg-003000.000") in str(caught.value)
    assert said == []


@pytest.mark.parametrize("reader", ["sha256", "read_json"])
def test_an_error_that_passes_is_waited_for(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    monkeypatch.setattr(checkpoint, "LAG_S", 10.0)
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _: None)
    broken = fails(getattr(checkpoint, reader), errno.ESTALE, 3)
    monkeypatch.setattr(checkpoint, reader, broken)
    assert checkpoint.newest(run_folder, pytest.fail) == run_folder / "kimg-003000.000"


def test_a_folder_or_latest_that_cannot_be_read_is_not_an_empty_run(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "listdir", fails(os.listdir, errno.EACCES, 10**9))
        with pytest.raises(DataError, match=r"checkpoints cannot be read \(Permission denied\)"):
            checkpoint.newest(run_folder, print)
    with monkeypatch.context() as patched:
        broken = fails(Path.read_bytes, errno.ESTALE, 10**9, "latest")
        patched.setattr(Path, "read_bytes", broken)
        with pytest.raises(DataError, match="latest cannot be read"):
            checkpoint.newest(run_folder, print)


def test_a_run_whose_checkpoints_are_all_torn_does_not_start_from_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "00003-mine/checkpoints"
    assert checkpoint.newest(folder, print) is None
    Run(tmp_path).stats({"nimg": 1})
    for nimg in (1000, 2000):
        (save(folder, nimg) / "G.safetensors").write_bytes(b"")
    (save(folder, 3000) / "COMPLETE").unlink()
    said: list[str] = []
    with pytest.raises(
        DataError,
        match=r"no checkpoint of 00003-mine can be read: .* among the 3 in .* start with --new",
    ):
        checkpoint.newest(folder, said.append)
    assert len(said) == 3
    assert names(folder) == ["kimg-000001.000", "kimg-000002.000", "kimg-000003.000", "latest"]


def test_what_was_passed_over_is_kept_under_another_name(tmp_path: Path) -> None:
    start = save(tmp_path, 1000)
    for number, again in ((1, ""), (2, "-2")):
        for nimg in (2000, 3000):
            (save(tmp_path, nimg) / "G.safetensors").write_bytes(b"%d" % number)
        said: list[str] = []
        assert checkpoint.newest(tmp_path, said.append) == start
        with Writer(tmp_path, 2, said.append) as writer:
            writer.save(1000 + number, {"G": {"w": torch.ones(3)}}, {})
        start = tmp_path / f"kimg-000001.00{number}"
        for name in ("kimg-000002.000", "kimg-000003.000"):
            assert f"{name}, which was passed over, is kept as rejected-{name}{again}" in said
            kept = tmp_path / f"rejected-{name}{again}"
            assert (kept / "G.safetensors").read_bytes() == b"%d" % number
    assert len([name for name in names(tmp_path) if name.startswith("rejected-")]) == 4
    assert checkpoint.complete(tmp_path)[-1] == start


def test_a_start_from_nothing_removes_no_checkpoint(tmp_path: Path) -> None:
    before = {save(tmp_path, nimg).name for nimg in (1_000_000, 2_000_000, 3_000_000)}
    save(tmp_path, 8, keep=1)
    assert {path.name for path in tmp_path.glob("rejected-*")} == {f"rejected-{n}" for n in before}


def test_a_torn_one_is_kept_when_its_name_is_used_again(tmp_path: Path) -> None:
    save(tmp_path, 1000)
    (save(tmp_path, 2000) / "G.safetensors").write_bytes(b"")
    save(tmp_path, 2000)
    assert names(tmp_path) == [
        "kimg-000001.000", "kimg-000002.000", "latest", "rejected-kimg-000002.000",
    ]  # fmt: skip
    save(tmp_path, 2000)  # a whole one is replaced as before
    assert len(names(tmp_path)) == 4


def test_what_a_killed_writer_left_is_not_removed_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1000)
    left = tmp_path / ".tmp-0123456789ab-kimg-000002.000"
    os.rename(save(tmp_path, 2000), left)
    said: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "sha256", fails(checkpoint.sha256, errno.EIO, 10**9))
        checkpoint.sweep(tmp_path, said.append)
    assert left.is_dir()
    assert "cannot be read (Input/output error); it is left as it is" in said[0]
    checkpoint.sweep(tmp_path, said.append)
    assert (checkpoint.newest(tmp_path, print) or left).name == "kimg-000002.000"


@pytest.mark.parametrize("load", ["state", "tensors"])
def test_another_rank_waits_for_what_rank_0_has_just_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    path = save(tmp_path, 1000)
    hidden, given = path.rename(tmp_path / LATER), path
    monkeypatch.setattr(checkpoint, "LAG_S", 10.0)
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _: hidden.rename(given))
    if load == "state":
        assert checkpoint.load_state(path)["nimg"] == 1000
    else:
        assert checkpoint.load_tensors(path, "G")["w"].tolist() == [1000.0] * 3


def test_what_does_not_come_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = save(tmp_path, 1000)
    file = path / "G.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"G\.safetensors was altered or cut short"):
        checkpoint.load_tensors(path, "G")
    for name in ("G.safetensors", "state.json"):
        (path / name).unlink()
    with pytest.raises(DataError, match=r"G\.safetensors cannot be read \(No such file"):
        checkpoint.load_tensors(path, "G")
    with pytest.raises(DataError, match=r"state\.json cannot be read \(No such file"):
        checkpoint.load_state(path)


def test_a_file_that_is_missing_is_believed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _: pytest.fail("it waited"))
    with pytest.raises(FileNotFoundError):
        patiently(Path.read_bytes, tmp_path / "no-such", 60.0)
    assert "does not exist" in (checkpoint.fault(tmp_path) or "")
