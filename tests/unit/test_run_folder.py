"""A run that cannot be written is refused at its start; a lock says who holds it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.lock import exclusive
from sunpipe.paths import Layout
from sunpipe.run import Run


def test_a_lock_says_who_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    lock = tmp_path / "locks/a.lock"
    lock.parent.mkdir()
    lock.write_text("a much longer line of the process before, which has died" * 5)
    who = rf"another process is working \(job 4711, process {os.getpid()} on \S+, since 20\S+\); w"
    with (
        exclusive(lock, "working"),
        pytest.raises(DataError, match=who),
        exclusive(lock, "working"),
    ):
        pass
    with exclusive(lock, "working"):  # the refused one has changed nothing
        lock.write_text("")
        said = "another process is working; wait"
        with pytest.raises(DataError, match=said), exclusive(lock, "working"):
            pass


def test_a_run_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    made = Run.open(layout, "x", {"a": 1}, frozenset(), new=False)
    before = sorted(tmp_path.rglob("*"))
    assert Run.open(layout, "x", {"a": 1}, frozenset(), new=False).folder == made.folder
    plain = tempfile.NamedTemporaryFile

    def refuse(*args: Any, dir: Path, **more: Any) -> Any:
        if dir.name == "checkpoints":
            raise OSError(30, "Read-only file system", str(dir))
        return plain(*args, dir=dir, **more)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(DataError, match=r"checkpoints cannot be written \(Read-only file system\)"):
        Run.open(layout, "x", {"a": 1}, frozenset(), new=False)
    assert [p for p in sorted(tmp_path.rglob("*")) if p.name != "log.txt"] == before


@pytest.mark.parametrize(
    "words",
    [("--set", "fetch.email=me@planted.org"), ("--set=fetch.email = 'me@planted.org'",),
     ("-sfetch.email=\nme@planted.org",), ("-s", 'fetch={"email"="me@planted.org"}')],
)  # fmt: skip
def test_an_email_of_the_command_line_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sunpipe", "train", *words, "--new"])
    for _ in range(2):
        run = Run.open(Layout(tmp_path), "x", {"a": 1}, frozenset(), new=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"config.json", "provenance.json", "log.txt"}
    assert not [path for path in files if "planted" in path.read_text()]
    command = read_json(run.folder / "provenance.json")["command"]
    assert command[:2] + command[-1:] == ["sunpipe", "train", "--new"]
    assert "=***" in " ".join(command)


def test_a_stderr_that_is_gone_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        for line in ("one", "two"):
            Run(tmp_path).log(line)
        monkeypatch.undo()
        with suppress(BrokenPipeError):
            gone.close()
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\n"


def test_few_torn_checkpoints_are_kept_and_no_whole_one_is_removed(tmp_path: Path) -> None:
    said: list[str] = []
    for nimg in (5000, 4000, 3000, 2000):  # each start goes on from an older one
        checkpoint.save(tmp_path, nimg, {"G": {"w": torch.ones(1)}}, {}, keep=1, report=said.append)
    whole = [f"rejected-kimg-00000{n}.000" for n in (3, 4, 5)]
    assert [path.name for path in sorted(tmp_path.glob("rejected-*"))] == whole
    (tmp_path / whole[2] / "G.safetensors").write_bytes(b"torn")
    checkpoint.save(tmp_path, 2500, {"G": {"w": torch.ones(1)}}, {}, keep=1, report=said.append)
    assert [path.name for path in sorted(tmp_path.glob("rejected-*"))] == whole[:2]
    assert said[-1].startswith(f"{whole[2]}, which is torn, is removed")
    assert checkpoint.newest(tmp_path, said.append) == tmp_path / "kimg-000002.500"


def test_copies_of_checkpoints_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(nimg: int) -> Path:
        return checkpoint.save(tmp_path, nimg, {"G": {"w": torch.ones(1)}}, {}, keep=1)

    copies = [save(1000).with_name(f"kimg-{word}") for word in ("000001.000.copy", "best")]
    for copy in copies:
        shutil.copytree(tmp_path / "kimg-000001.000", copy)
    for rejected in ("rejected-kimg-000009.000", "rejected-kimg-000008.000"):
        (tmp_path / rejected).mkdir()
    known = checkpoint.fault

    def unreadable(path: Path) -> str | None:
        if path.name.startswith("rejected"):
            raise PermissionError(13, "Permission denied", str(path))
        return known(path)

    monkeypatch.setattr(checkpoint, "fault", unreadable)
    second = save(2000)
    assert checkpoint.complete(tmp_path) == [second]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
        "kimg-000001.000.copy", "kimg-000002.000", "kimg-best",
        "rejected-kimg-000008.000", "rejected-kimg-000009.000",
    ]  # fmt: skip
