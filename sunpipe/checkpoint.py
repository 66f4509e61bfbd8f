"""Checkpoints: safetensors and JSON, complete or not there (contract C6).

A checkpoint is a folder ``checkpoints/kimg-NNNNNN.nnn`` written under a
temporary name, with the digest of every file in ``COMPLETE``, renamed, and only
then named by ``checkpoints/latest``. A torn or altered one is passed over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.config import changed_keys
from sunpipe.errors import DataError
from sunpipe.files import TEMPORARY_PREFIX, atomic_folder, read_json, sha256, write_json, write_text

if TYPE_CHECKING:
    import torch

SCHEMA = 1
Tensors = Mapping[str, "torch.Tensor"]


def folder_name(nimg: int) -> str:
    """``kimg-000012.288`` for 12 288 images: sorts by images shown."""
    return f"kimg-{nimg // 1000:06d}.{nimg % 1000:03d}"


def save(
    folder: Path, nimg: int, tensors: Mapping[str, Tensors], state: dict[str, Any], keep: int
) -> Path:
    """Write a checkpoint and point ``latest`` at it; keep the last `keep`.

    Parameters
    ----------
    folder : Path
        ``<run>/checkpoints``.
    nimg : int
        Images shown so far.
    tensors : mapping
        File stem (``G``, ``D``, ``zero/G``) to named tensors.
    state : dict
        JSON-able training state.
    keep : int
        Older complete checkpoints beyond this number are removed.
    """
    from safetensors.torch import save as to_bytes

    target = folder / folder_name(nimg)
    with atomic_folder(target) as temporary:
        files = {}
        for stem, named in tensors.items():
            file = temporary / f"{stem}.safetensors"
            file.parent.mkdir(exist_ok=True)
            # safetensors' own save_file makes files that only their owner may read
            plain = {key: value.detach().cpu().contiguous() for key, value in named.items()}
            file.write_bytes(to_bytes(plain))
            files[f"{stem}.safetensors"] = sha256(file)
        write_json(temporary / "state.json", {"schema": SCHEMA, "nimg": nimg, **state})
        files["state.json"] = sha256(temporary / "state.json")
        write_text(temporary / "COMPLETE", json.dumps(files, indent=2) + "\n")
    write_text(folder / "latest", target.name + "\n")
    kept = complete(folder)
    # anything newer was passed over when the run continued from an older checkpoint
    for rejected in [path for path in kept if path.name > target.name]:
        shutil.rmtree(rejected)
    for old in [path for path in kept if path.name <= target.name][:-keep]:
        shutil.rmtree(old)
    for torn in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if torn.is_dir():
            shutil.rmtree(torn, ignore_errors=True)
    return target


def complete(folder: Path) -> list[Path]:
    """Checkpoints with a ``COMPLETE`` marker, oldest first."""
    return sorted(path.parent for path in folder.glob("kimg-*/COMPLETE"))


def fault(path: Path) -> str | None:
    """Why the checkpoint at `path` cannot be trusted, or None."""
    try:
        files = read_json(path / "COMPLETE")
    except DataError as error:
        return str(error)
    for name, known in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if sha256(file) != known:
            return f"{name} was altered or cut short"
    return None


def newest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Newest checkpoint that is whole; broken ones are reported and passed over."""
    for path in reversed(complete(folder)):
        why = fault(path)
        if why is None:
            return path
        report(f"checkpoint {path.name} passed over: {why}")
    return None


def load_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint."""
    state = read_json(path / "state.json")
    if state.get("schema") != SCHEMA:
        raise DataError(f"{path} has schema {state.get('schema')}, this version reads {SCHEMA}")
    return state


def check_made_of(path: Path, state: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was made with another configuration, by the keys that differ.

    Parameters
    ----------
    state : mapping
        From `load_state`; ``made_of`` in it is compared.
    expected : mapping
        The same of the run that wants to load it.
    """
    differ = changed_keys(state.get("made_of", {}), json.loads(json.dumps(expected)))
    if differ:
        raise DataError(
            f"checkpoint {path.name} was made with another {', '.join(differ)}; it does not belong"
            f" to {path.parent.parent.name}"
        )


def load_tensors(path: Path, stem: str) -> dict[str, torch.Tensor]:
    """Named tensors of one file of a checkpoint, on the CPU."""
    from safetensors.torch import load_file

    return load_file(path / f"{stem}.safetensors")
