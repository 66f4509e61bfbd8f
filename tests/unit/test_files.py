"""Atomic files, run folders and checkpoints: complete or not there."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.files import atomic_folder, atomic_path, digest, read_json, write_json
from sunpipe.paths import Layout, data_root
from sunpipe.run import Run, find_run, read_stats


def half_write_file(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError


def half_write_folder(path: Path) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "x").write_text("half")
        raise KeyboardInterrupt


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        half_write_file(path)
    assert path.read_text() == "old"
    with pytest.raises(KeyboardInterrupt):
        half_write_folder(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "f") as temporary:
            (temporary / content).write_text(content)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path, number: int) -> None:
    def fill(atomic: Callable[[Path], AbstractContextManager[Path]]) -> None:
        with atomic(tmp_path / "target"):
            raise OSError(number, "full", "source.fits", None, "temporary")  # as shutil does

    for atomic in (atomic_path, atomic_folder):
        with pytest.raises(OSError, match=r"No space|quota") as caught:
            fill(atomic)
        assert caught.value.filename == str(tmp_path / "target")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="denied"), atomic_path(tmp_path / "target"):
        raise OSError(errno.EACCES, "denied", "source.fits")


def test_json_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(DataError, match="stands twice"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": ')
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "y.json")


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


def test_data_root_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("SUNPIPE_ROOT", raising=False)
    assert data_root() == tmp_path / "scratch" / "sunpipe"
    monkeypatch.setenv("SUNPIPE_ROOT", str(tmp_path / "own"))
    assert data_root() == tmp_path / "own"


def save(folder: Path, nimg: int, value: float, keep: int = 3) -> Path:
    tensors = {"G": {"w": torch.full((3,), value)}, "zero/G": {"step": torch.tensor(value)}}
    return checkpoint.save(folder, nimg, tensors, {"pl_mean": value}, keep)


def test_checkpoint_round_trip_and_retention(tmp_path: Path) -> None:
    for number in range(1, 6):
        save(tmp_path, number * 1500, float(number))
    assert [p.name for p in checkpoint.complete(tmp_path)] == [
        "kimg-000004.500", "kimg-000006.000", "kimg-000007.500",
    ]  # fmt: skip
    newest = checkpoint.newest(tmp_path, print)
    assert newest is not None
    assert newest.name == (tmp_path / "latest").read_text().strip()
    assert checkpoint.load_state(newest)["nimg"] == 7500
    assert float(checkpoint.load_tensors(newest, "zero/G")["step"]) == 5.0


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "marker"])
def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path: Path, damage: str) -> None:
    good = save(tmp_path, 1000, 1.0)
    bad = save(tmp_path, 2000, 2.0)
    file = bad / "G.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-2])
    elif damage == "flip":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(bytes(data))
    elif damage == "gone":
        file.unlink()
    else:
        (bad / "COMPLETE").write_text("{")
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == good
    assert len(said) == 1
    assert bad.name in said[0]


def test_a_rejected_newer_checkpoint_never_costs_a_good_one(tmp_path: Path) -> None:
    save(tmp_path, 4000, 1.0, keep=1)
    bad = save(tmp_path, 5000, 2.0, keep=2)
    (bad / "G.safetensors").write_bytes(b"")
    assert checkpoint.newest(tmp_path, print) == tmp_path / "kimg-000004.000"
    saved = save(tmp_path, 4500, 3.0, keep=1)
    assert checkpoint.newest(tmp_path, print) == saved
    assert [path.name for path in checkpoint.complete(tmp_path)] == [saved.name]
    assert (tmp_path / "latest").read_text().strip() == saved.name


def test_what_a_killed_writer_left_is_swept_after_a_day(tmp_path: Path) -> None:
    old = tmp_path / f".tmp-{'a' * 12}-x.json"
    fresh = tmp_path / f".tmp-{'b' * 12}-x.json"
    other = tmp_path / f".tmp-{'a' * 12}-y.json"
    for path in (old, fresh, other):
        path.write_text("{")
    for path in (old, other):
        os.utime(path, (1, 1))
    write_json(tmp_path / "x.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [fresh.name, other.name, "x.json"]
    )


def test_the_same_checkpoint_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 1000, 1.0)
    save(tmp_path, 1000, 2.0)
    newest = checkpoint.newest(tmp_path, print)
    assert newest is not None
    assert float(checkpoint.load_tensors(newest, "G")["w"][0]) == 2.0


def test_run_folders_are_numbered_and_found_by_name(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    config = {"train": {"batch": 8, "kimg": 1.0}}
    first = Run.open(layout, "a", config, frozenset(), new=False)
    Run.open(layout, "b", config, frozenset(), new=False)
    again = Run.open(layout, "a", config, frozenset(), new=False)
    assert again.folder == first.folder
    newer = Run.open(layout, "a", config, frozenset(), new=True)
    assert newer.folder.name == "00002-a"
    assert find_run(layout, "a") == newer.folder
    assert (newer.folder / "provenance.json").exists()


def test_a_changed_key_is_refused_by_name(tmp_path: Path) -> None:
    layout, free = Layout(tmp_path), frozenset({"train.kimg"})
    Run.open(layout, "a", {"train": {"batch": 8, "kimg": 1.0}}, free, new=False)
    Run.open(layout, "a", {"train": {"batch": 8, "kimg": 2.0}}, free, new=False)
    with pytest.raises(DataError, match=r"another train\.batch"):
        Run.open(layout, "a", {"train": {"batch": 16, "kimg": 2.0}}, free, new=False)


def test_stats_survive_a_torn_last_line_and_rewind(tmp_path: Path) -> None:
    run = Run.open(Layout(tmp_path), "a", {}, frozenset(), new=False)
    for nimg in (10, 20, 30):
        run.stats({"nimg": nimg})
    with open(run.folder / "stats.jsonl", "a") as handle:
        handle.write('{"nimg": 4')
    assert [row["nimg"] for row in read_stats(run.folder)] == [10, 20, 30]
    run.rewind_stats(20)
    assert [row["nimg"] for row in read_stats(run.folder)] == [10, 20]
    (run.folder / "stats.jsonl").write_text('{"nimg"\n{"nimg": 3}\n')
    with pytest.raises(DataError, match=r"stats\.jsonl:1"):
        read_stats(run.folder)
    for line in ("{}", "5", '{"nimg": null}'):
        (run.folder / "stats.jsonl").write_text('{"nimg": 10}\n' + line + "\n")
        with pytest.raises(DataError, match=r"stats.jsonl:2 is not a tick"):
            read_stats(run.folder)
    (run.folder / "stats.jsonl").write_bytes(b'{"nimg": 10}\n{"nimg": \xff\0\0')  # a power cut
    assert read_stats(run.folder) == [{"nimg": 10}]
    write_json(run.folder / "status.json", {})
    assert json.loads((run.folder / "status.json").read_text()) == {}
