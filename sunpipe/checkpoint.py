"""Checkpoints: safetensors and JSON, complete or not there (contract C6).

A checkpoint is a folder ``checkpoints/kimg-NNNNNN.nnn`` written under a
temporary name, with the digest of every file in ``COMPLETE``, renamed, and only
then named by ``checkpoints/latest``. A torn or altered one is passed over, and
one that holds NaN is not written. A file that cannot be read for now says
nothing about its checkpoint: that is an error, and no reason to go back to an
older one. `sunpipe.checkpoint_writer` writes them in the background.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.config import changed_keys
from sunpipe.errors import DataError
from sunpipe.files import (
    TEMPORARY_PREFIX,
    atomic_folder,
    plain_file,
    read_json,
    replace_folder,
    sha256,
    write_text,
)
from sunpipe.patient import NO_FILE, patiently, reading
from sunpipe.tensorfile import write_tensors

if TYPE_CHECKING:
    import torch

SCHEMA = 2
NAME = re.compile(r"kimg-\d{6,}\.\d{3}")
WRITTEN = re.compile(re.escape(TEMPORARY_PREFIX) + rf"[0-9a-f]{{12}}-({NAME.pattern})")
LAG_S = 2.0  # in which a network file system shows what another node wrote, or comes back
Tensors = Mapping[str, "torch.Tensor"]


def folder_name(nimg: int) -> str:
    """``kimg-000012.288`` for 12 288 images: sorts by images shown."""
    return f"kimg-{nimg // 1000:06d}.{nimg % 1000:03d}"


def refuse_nonfinite(nimg: int, tensors: Mapping[str, Tensors]) -> None:
    """A `DataError` naming file and tensor if any value is NaN or infinite.

    One wait for each device in all, however many tensors there are.
    """
    import torch

    asked: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}
    for stem, group in tensors.items():
        for name, tensor in group.items():
            if tensor.is_floating_point() and tensor.numel():
                # NaN and infinity both show in the extremes; unlike isfinite, these need no memory
                finite = torch.stack(torch.aminmax(tensor.detach())).isfinite().all()
                asked.setdefault(tensor.device, []).append((f"{name} of {stem}", finite))
    for found in asked.values():
        answers = torch.stack([finite for _, finite in found]).tolist()
        for (what, _), finite in zip(found, answers, strict=True):
            if not finite:
                raise DataError(f"checkpoint {folder_name(nimg)} is not written: {what}.safetensors"
                                " holds a value that is not finite")  # fmt: skip


def state_text(nimg: int, state: Mapping[str, Any]) -> str:
    """What ``state.json`` will hold; a number that is not finite is a `DataError`."""
    try:
        return json.dumps({"schema": SCHEMA, "nimg": nimg, **state}, indent=2, allow_nan=False)
    except ValueError:
        raise DataError(f"checkpoint {folder_name(nimg)} is not written: state.json would hold a"
                        " number that is not finite") from None  # fmt: skip


def save(
    folder: Path, nimg: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], keep: int,
    report: Callable[[str], None] = lambda _: None,
) -> Path:  # fmt: skip
    """Write a checkpoint and point ``latest`` at it; keep the last `keep`.

    The order makes a kill or a power cut at any moment harmless: every file and
    folder is on the device and was read back before the folder has its name,
    ``latest`` comes after it, and the removal of older ones after that. One that was
    passed over is renamed to ``rejected-<name>``; of these, torn ones beyond `keep` are
    removed, whole ones never. The caller holds the run's lock.

    Parameters
    ----------
    folder : Path
        ``<run>/checkpoints``.
    nimg : int
        Images shown so far.
    tensors : mapping
        File stem (``G``, ``D``, ``zero/G``) to named tensors.
    state : mapping
        JSON-able training state.
    keep : int
        Older complete checkpoints beyond this number are removed.
    report : callable
        Gets one line for each that is renamed or removed so.

    Raises
    ------
    DataError
        A tensor or the state holds a value that is not finite.
    OSError
        The disk is full or fails; earlier checkpoints are untouched.
    """
    refuse_nonfinite(nimg, tensors)
    text, target = state_text(nimg, state) + "\n", folder / folder_name(nimg)
    sweep(folder)
    if target.exists() and fault(target):
        _set_aside(target, report)
    with atomic_folder(target) as temporary:
        files = {}
        for stem, named in tensors.items():
            file = temporary / f"{stem}.safetensors"
            file.parent.mkdir(exist_ok=True)
            files[f"{stem}.safetensors"] = write_tensors(file, named)
        write_text(temporary / "state.json", text)
        files["state.json"] = hashlib.sha256(text.encode()).hexdigest()
        write_text(temporary / "COMPLETE", json.dumps(files, indent=2) + "\n")
        if why := fault(temporary):
            raise OSError(errno.EIO, f"what was just written reads back otherwise: {why}",
                          str(target))  # fmt: skip
    write_text(folder / "latest", target.name + "\n")
    before = sorted(folder.glob("rejected-*"), key=lambda path: path.lstat().st_ctime_ns)
    # anything newer was passed over when the run continued from an older checkpoint
    for rejected in sorted(path for path in _listed(folder) if path.name > target.name):
        _set_aside(rejected, report)
    for old in complete(folder)[:-keep]:
        _discard(old)
    for old in before[:-keep]:
        with suppress(OSError):  # what cannot be read for now is kept
            if fault(old):  # a whole one may be wanted after all
                _discard(old)
                report(f"{old.name}, which is torn, is removed: {keep} passed over later are kept")
    return target


def _set_aside(path: Path, report: Callable[[str], None]) -> None:
    """Take a checkpoint out of the way of a run that does not use it."""
    aside, number = path.with_name(f"rejected-{path.name}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"rejected-{path.name}-{number}")
    os.rename(path, aside)
    report(f"{path.name}, which was passed over, is kept as {aside.name}")


def _discard(path: Path) -> None:
    """Remove a checkpoint; a kill on the way leaves nothing that looks like one."""
    aside = path.with_name(f"{TEMPORARY_PREFIX}removed-{path.name}")
    os.rename(path, aside)
    # NFS keeps files that somebody still reads: the next sweep removes them
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path, report: Callable[[str], None] = lambda _: None) -> None:
    """Clear up after killed writers; call it under the lock of the run, before `newest`.

    A checkpoint that was whole but for its name gets it: the last rename was
    still to come, or the exchange with an older one of the same name was cut
    short where the file system has no exchange. What cannot be read is left for
    the next time, and all else is removed.
    """
    for left in sorted(folder.glob(f"{TEMPORARY_PREFIX}*")):
        if not left.is_dir():
            left.unlink()
            continue
        named = WRITTEN.fullmatch(left.name)
        target = folder / (named[1] if named else "")
        try:
            unnamed = named and fault(left) is None and fault(target) is not None
        except OSError as error:
            report(f"{error.filename} cannot be read ({error.strerror}); it is left as it is")
            continue
        if unnamed:
            replace_folder(left, target)
            report(f"checkpoint {target.name} had been written, but not named; it is kept")
        else:
            shutil.rmtree(left, ignore_errors=True)


def complete(folder: Path) -> list[Path]:
    """Checkpoints with a ``COMPLETE`` marker, oldest first; somebody's copies are none."""
    found = (marker.parent for marker in folder.glob("kimg-*/COMPLETE"))
    return sorted(path for path in found if NAME.fullmatch(path.name))


def _listed(folder: Path) -> list[Path]:
    """All that has the name of a checkpoint, also without a marker; none if there is no folder."""
    try:
        names = patiently(os.listdir, folder, LAG_S)
    except FileNotFoundError:
        return []
    return [folder / name for name in names if NAME.fullmatch(name)]


def fault(path: Path) -> str | None:
    """Why the checkpoint at `path` is known to be torn or altered, or None if it is whole.

    An `OSError` when a file is there and cannot be read, also not after `LAG_S` seconds
    (a stale handle, a failing disk, permissions): nothing is known then.
    """
    if not plain_file(path, "COMPLETE"):
        return "COMPLETE is a link or no file"
    try:
        files = patiently(read_json, path / "COMPLETE", LAG_S)
    except DataError as error:
        return str(error)
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return f"COMPLETE cannot be read ({error.strerror})"
    if not isinstance(files, dict) or "state.json" not in files:
        return "COMPLETE does not list the files"
    for name, known in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            return f"COMPLETE lists {name!r}, which is not in the folder"
        if not plain_file(path, name):
            return f"{name} is a link or no file"
        try:
            if patiently(sha256, path / name, LAG_S) != known:
                return f"{name} was altered or cut short"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            return f"{name} cannot be read ({error.strerror})"
    return None


def _named(folder: Path) -> Path | None:
    """What ``latest`` names; another node may see that before the folder, or before its list."""
    try:
        name = patiently(Path.read_bytes, folder / "latest", LAG_S).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    if not NAME.fullmatch(name):
        return None
    end = time.monotonic() + LAG_S
    while not os.path.exists(folder / name / "COMPLETE") and time.monotonic() < end:
        time.sleep(LAG_S / 20)
    return folder / name


def newest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Newest checkpoint that is whole, None if there is none of any kind.

    Torn ones are reported and passed over; nothing is changed.

    Raises
    ------
    DataError
        There are checkpoints and none is whole, or one cannot be read: an older
        one, or a start from nothing, would throw away what it may hold.
    """
    with reading():
        found = {*_listed(folder), *filter(None, [_named(folder)])}
    for path in sorted(found, reverse=True):
        try:
            why = fault(path)
        except OSError as error:
            raise DataError(
                f"checkpoint {path.name}: {error.filename} cannot be read ({error.strerror});"
                " nothing was changed. Run the same command again when it can be read, or move"
                " that checkpoint elsewhere to go on from the one before it"
            ) from None
        if why is None:
            return path
        report(f"checkpoint {path.name} passed over: {why}")
    if found:
        raise DataError(
            f"no checkpoint of {folder.parent.name} can be read: no whole checkpoint is among the"
            f" {len(found)} in {folder}; bring one back from a copy, or start with --new"
        )
    return None


def load_state(path: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint, waited for as in `load_tensors`.

    A `DataError` when it cannot be read, or is of another version of sunpipe.
    """
    file = path / "state.json"
    with reading():
        patiently(os.stat, file, LAG_S, final=())
        state = patiently(read_json, file, LAG_S)
    schema = state.get("schema") if isinstance(state, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"{path} has schema {schema}, this version reads {SCHEMA}: use the version of sunpipe"
            " that wrote it, or start a new run with --new"
        )
    nimg = state.get("nimg")
    if type(nimg) is not int or nimg < 0:
        raise DataError(f"{file} says nimg={nimg!r}, which is no number of images")
    return dict(state)


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
    """Named tensors of one file of a checkpoint, on the CPU.

    A file that is not there yet is waited for: another node of a network file system may
    just have named its folder. A `DataError` when it cannot be read, or is not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / f"{stem}.safetensors"
    with reading():
        patiently(os.stat, file, LAG_S, final=())
        try:
            return patiently(load_file, file, LAG_S)
        except SafetensorError as error:
            raise DataError(f"{file} was altered or cut short ({error})") from None
