"""What a checkpoint's files hold, what is never written, and what killed writers leave."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.tensorfile import DTYPES, write_tensors

TEMPORARY = ".tmp-0123456789ab-"


def save(folder: Path, nimg: int, value: float = 1.0, keep: int = 3) -> Path:
    tensors = {"G": {"w": torch.full((3,), value)}, "zero/G": {"step": torch.tensor(value)}}
    return checkpoint.save(folder, nimg, tensors, {"value": value}, keep)


def value_of(path: Path | None) -> float:
    assert path is not None
    return float(checkpoint.load_tensors(path, "G")["w"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tensor_files_are_those_of_the_library(tmp_path: Path) -> None:
    named = {f"a/{name}": torch.arange(7).to(getattr(torch, name)) for name in DTYPES}
    named |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "größe": torch.ones(1),
              "columns": torch.randn(6, 5).t(), "nhwc": torch.randn(2, 3, 4, 4).to(
                  memory_format=torch.channels_last)}  # fmt: skip
    digest = write_tensors(tmp_path / "x", named)
    plain = {name: tensor.contiguous() for name, tensor in named.items()}
    assert (tmp_path / "x").read_bytes() == to_bytes(plain)
    assert digest == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert write_tensors(tmp_path / "none", {}) and load_file(tmp_path / "none") == {}  # noqa: PT018
    mode = (tmp_path / "x").stat().st_mode & 0o777
    (tmp_path / "other").write_text("")
    assert mode == (tmp_path / "other").stat().st_mode & 0o777
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "x", named)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_never_written(tmp_path: Path, bad: float) -> None:
    good = save(tmp_path, 1000)
    poisoned = {"G": {"fine": torch.ones(2), "blocks.8.weight": torch.tensor([1.0, bad, 2.0])}}
    with pytest.raises(DataError, match=r"kimg-000002.000 .*blocks\.8\.weight of G\.safetensors"):
        checkpoint.save(tmp_path, 2000, poisoned, {}, keep=1)
    with pytest.raises(DataError, match=r"state\.json would hold a number that is not finite"):
        checkpoint.save(tmp_path, 2000, {}, {"pl_mean": bad}, keep=1)
    assert names(tmp_path) == [good.name, "latest"]


def test_values_of_every_kind_are_looked_at() -> None:
    fine = {"i": torch.tensor([2**31 - 1]), "b": torch.tensor([True]), "e": torch.zeros(0),
            "d": torch.tensor([1e300], dtype=torch.float64),
            "h": torch.tensor([65504.0], dtype=torch.float16)}  # fmt: skip
    checkpoint.refuse_nonfinite(0, {"G": fine})
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        with pytest.raises(DataError, match="x of G"):
            checkpoint.refuse_nonfinite(
                0, {"G": {**fine, "x": torch.tensor(float("nan")).to(dtype)}}
            )


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({}, "does not list the files"),
        ([], "does not list the files"),
        ({"state.json": "0"}, "state.json was altered or cut short"),
        ({"../../outside": "0"}, "which is not in the folder"),
        ({"/etc/passwd": "0"}, "which is not in the folder"),
        ({"zero": "0"}, "zero cannot be read (Is a directory)"),
    ],
)
def test_a_marker_that_says_something_else_is_not_trusted(
    tmp_path: Path, listed: Any, words: str
) -> None:
    good, bad = save(tmp_path, 1000), save(tmp_path, 2000)
    if listed:
        listed = {**json.loads((bad / "COMPLETE").read_text()), **listed}
    (bad / "COMPLETE").write_text(json.dumps(listed))
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == good
    assert len(said) == 1
    assert words in said[0]


def test_a_checkpoint_that_lacks_only_its_name_gets_it(tmp_path: Path) -> None:
    save(tmp_path, 1000, 1.0)
    os.rename(save(tmp_path, 2000, 2.0), tmp_path / f"{TEMPORARY}kimg-000002.000")
    said: list[str] = []
    checkpoint.sweep(tmp_path, said.append)
    assert value_of(checkpoint.newest(tmp_path, print)) == 2.0
    assert said == ["checkpoint kimg-000002.000 had been written, but not named; it is kept"]
    assert names(tmp_path) == ["kimg-000001.000", "kimg-000002.000", "latest"]


def test_a_torn_checkpoint_gives_way_to_a_whole_one_of_its_name(tmp_path: Path) -> None:
    path, copy = save(tmp_path, 1000, 1.0), tmp_path / f"{TEMPORARY}kimg-000001.000"
    shutil.copytree(path, copy)
    (path / "state.json").write_text("{}")
    checkpoint.sweep(tmp_path)
    assert value_of(checkpoint.newest(tmp_path, print)) == 1.0
    # but never a whole one to another
    shutil.copytree(path, copy)
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["kimg-000001.000", "latest"]


@pytest.mark.parametrize("left", ["torn", "removed", "file", "stranger"])
def test_other_leftovers_are_removed(tmp_path: Path, left: str) -> None:
    path = save(tmp_path, 1000)
    if left == "file":
        (tmp_path / f"{TEMPORARY}latest").write_text("kimg")
    else:
        name = {"torn": f"{TEMPORARY}kimg-000002.000", "removed": ".tmp-removed-kimg-000000.500",
                "stranger": f"{TEMPORARY}other"}[left]  # fmt: skip
        shutil.copytree(path, tmp_path / name)
        if left == "torn":
            (tmp_path / name / "zero/G.safetensors").unlink()
    save(tmp_path, 3000)  # sweeps first
    assert names(tmp_path) == ["kimg-000001.000", "kimg-000003.000", "latest"]


def test_a_checkpoint_that_latest_names_is_waited_for_and_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, late = save(tmp_path, 1000, 1.0), save(tmp_path, 2000, 2.0)
    hidden = late.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(checkpoint.time, "sleep", lambda _: hidden.rename(late))
    assert checkpoint.newest(tmp_path, print) == late
    shutil.rmtree(late)
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "LAG_S", 0.01)
    said: list[str] = []
    assert checkpoint.newest(tmp_path, said.append) == good
    assert said[0].startswith("checkpoint kimg-000002.000 passed over: ")
    assert "COMPLETE does not exist" in said[0]
    for text in ("../../etc", "", "kimg-1"):
        (tmp_path / "latest").write_text(text)
        assert checkpoint.newest(tmp_path, said.append) == good
    assert len(said) == 1


def test_a_checkpoint_that_is_not_listed_yet_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1000)
    late = save(tmp_path, 2000)
    monkeypatch.setattr(checkpoint, "_listed", lambda folder: [folder / "kimg-000001.000"])
    assert checkpoint.newest(tmp_path, print) == late


def test_what_the_device_returns_is_compared_with_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = save(tmp_path, 1000)

    def losing(path: Path, named: Any) -> str:
        digest = write_tensors(path, named)
        data = bytearray(path.read_bytes())
        data[-1] ^= 4
        path.write_bytes(bytes(data))
        return digest

    monkeypatch.setattr(checkpoint, "write_tensors", losing)
    with pytest.raises(OSError, match=r"reads back otherwise: G\.safetensors") as caught:
        save(tmp_path, 2000, keep=1)
    assert caught.value.filename == str(tmp_path / "kimg-000002.000")
    assert names(tmp_path) == [good.name, "latest"]


def test_a_checkpoint_of_another_architecture_is_refused_by_key(tmp_path: Path) -> None:
    made = {"train": {"model": {"g_architecture": "skip", "channel_max": 512}}, "data": {"r": 64}}
    path = checkpoint.save(tmp_path / "00007-a/checkpoints", 1000, {}, {"made_of": made}, keep=1)
    state = checkpoint.load_state(path)
    checkpoint.check_made_of(path, state, made)
    other = {"train": {"model": {"g_architecture": "orig", "channel_max": 512}}, "data": {"r": 128}}
    with pytest.raises(
        DataError,
        match=r"kimg-000001\.000 was made with another data\.r, train\.model\.g_architecture;"
        r" it does not belong to 00007-a",
    ):
        checkpoint.check_made_of(path, state, other)
    (path / "state.json").write_text("[]")
    with pytest.raises(DataError, match="has schema None"):
        checkpoint.load_state(path)
    (path / "state.json").write_text(json.dumps({**state, "schema": 99}))
    with pytest.raises(
        DataError, match=r"has schema 99, this version reads 2: .* start a new run with --new"
    ):
        checkpoint.load_state(path)
