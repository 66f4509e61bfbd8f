"""Checkpoints from strangers: opening one runs no code, reads nothing outside, and does not hang.

Every digest is right: who made the checkpoint made its list too.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.files import sha256


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def bomb(marker: Path) -> bytes:
    content = pickle.dumps(Bomb(marker))
    pickle.loads(content)  # it is one
    marker.rmdir()
    return content


def relist(path: Path) -> None:
    """Make the list of files fit the files."""
    found = [file for file in path.rglob("*") if file.is_file() and file.name != "COMPLETE"]
    files = {str(file.relative_to(path)): sha256(file) for file in found}
    (path / "COMPLETE").write_text(json.dumps(files))


def pickled_tensors(path: Path, marker: Path) -> None:
    (path / "G.safetensors").write_bytes(bomb(marker))


def torch_file(path: Path, marker: Path) -> None:
    torch.save({"w": Bomb(marker)}, path / "G.safetensors")


def zipped(path: Path, marker: Path) -> None:
    with zipfile.ZipFile(path / "G.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", bomb(marker))
        archive.writestr("archive/version", "3\n")


def metadata(path: Path, marker: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"pickle": bomb(marker).hex()}, "w": entry}).encode()
    content = struct.pack("<Q", len(header)) + header + b"\0\0\x80?"
    (path / "G.safetensors").write_bytes(content)


def extra_files(path: Path, marker: Path) -> None:
    """What DeepSpeed, torch and numpy would load, beside what is read here."""
    for name in ("G.pt", "mp_rank_00_model_states.pt", "state.pkl", "G.npy", "zero/optim.pt"):
        (path / name).write_bytes(bomb(marker))


def huge_header(path: Path, marker: Path) -> None:
    (path / "G.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def huge_tensor(path: Path, marker: Path) -> None:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    (path / "G.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)


def overlapping(path: Path, marker: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"w": entry, "v": entry}).encode()
    (path / "G.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def state(text: str) -> Callable[[Path, Path], None]:
    def write(path: Path, marker: Path) -> None:
        (path / "state.json").write_text(text)

    return write


def fifo(path: Path, marker: Path) -> None:
    """Opening it would wait for a writer for ever."""
    (path / "G.safetensors").unlink()
    os.mkfifo(path / "G.safetensors")


def secret(path: Path) -> Path:
    file = path.parent.parent / "secret.safetensors"
    if not file.exists():
        file.write_bytes((path / "G.safetensors").read_bytes())
    return file


def link(path: Path, marker: Path) -> None:
    target = secret(path)
    (path / "G.safetensors").unlink()
    (path / "G.safetensors").symlink_to(target)


def device(path: Path, marker: Path) -> None:
    (path / "G.safetensors").unlink()
    (path / "G.safetensors").symlink_to("/dev/zero")


SPOILT: dict[str, Callable[[Path, Path], None]] = {
    "pickle": pickled_tensors, "torch file": torch_file, "zip": zipped,
    "huge header": huge_header, "huge tensor": huge_tensor, "overlap": overlapping,
    "no nimg": state('{"schema": 2}'), "NaN": state('{"schema": 2, "nimg": NaN}'),
    "infinite": state('{"schema": 2, "nimg": 1e999}'), "text": state('{"schema": 2, "nimg": "9"}'),
    "negative": state('{"schema": 2, "nimg": -8}'), "list": state("[]"),
    "true": state('{"schema": 2, "nimg": true}'),
    "twice": state('{"schema": 2, "nimg": 1000, "nimg": 2000}'),
    "nested": state('{"schema": 2, "nimg": 1000, "x": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "long number": state('{"schema": 2, "nimg": ' + "9" * 10_000 + "}"),
    "not text": lambda path, marker: (path / "state.json").write_bytes(b"\xff\xfe\0"),
    "fifo": fifo, "link": link, "device": device,
}  # fmt: skip
HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    "metadata": metadata, "extra files": extra_files,
}  # fmt: skip
LISTS = [
    '{"state.json": "%s", "../../secret": "00"}', '{"state.json": "%s", "/etc/passwd": "00"}',
    '{"state.json": "%s", "a/../../../secret": "00"}', '{"state.json": "%s", "a\\u0000b": "00"}',
    '{"state.json": "%s", "state.json": "00"}', '{"state.json": NaN}', '{"state.json": ["%s"]}',
    '["state.json"]', '"state.json"', "{", "", "[" * 100_000, '{"state.json": "%s", "": "00"}',
    '{"state.json": "%s", "' + "a" * 5000 + '": "00"}', '{"state.json": "%s", ".": "00"}',
    '{"state.json": "%s", "/dev/zero": "00"}', '{"G.safetensors": "%s"}', "null", "0", "\ud800",
]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {"G": {"w": torch.ones(1)}, "zero/G": {"step": torch.ones(1)}}
    (tmp_path / "checkpoints").mkdir()
    return checkpoint.save(tmp_path / "checkpoints", 1000, tensors, {}, keep=3)


def opened(path: Path) -> None:
    """What a resume, and what a later stage reads."""
    found = checkpoint.newest(path.parent, lambda line: None)
    assert found == path
    assert checkpoint.load_state(path)["nimg"] == 1000
    checkpoint.load_tensors(path, "G")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_one_is_refused_in_one_line(path: Path, tmp_path: Path, kind: str) -> None:
    marker, start = tmp_path / "marker", time.monotonic()
    if kind in ("fifo", "device"):  # the list is of before: these have no digest
        SPOILT[kind](path, marker)
    else:
        SPOILT[kind](path, marker)
        relist(path)
    with pytest.raises(DataError) as refused:
        opened(path)
    assert "\n" not in str(refused.value)
    assert not marker.exists()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_not_read_does_nothing(path: Path, tmp_path: Path, kind: str) -> None:
    HARMLESS[kind](path, tmp_path / "marker")
    relist(path)
    opened(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", LISTS, ids=range(len(LISTS)))
def test_a_list_that_names_what_is_not_in_the_folder_is_refused(path: Path, text: str) -> None:
    digest = sha256(path / "state.json")
    content = text.replace("%s", digest).encode(errors="surrogatepass")
    (path / "COMPLETE").write_bytes(content)
    with pytest.raises(DataError, match="no checkpoint of"):
        opened(path)
