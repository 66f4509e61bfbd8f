"""Faults of files and clocks: full and read-only disks, altered checkpoints, skewed time."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults_rig import BOUND_S, Rig, Seen, Training, require, until
from sunpipe.files import sha256, write_text

SHIM = Path(__file__).with_name("faults_clock.c")
ROOM = 16 << 20  # bytes of the small disk
STEP = 37_000  # bytes between fill points; a checkpoint has 0.5 MB


@contextmanager
def mounted(on: Path, *words: str) -> Iterator[None]:
    """A mount that is gone at the end; needs root."""
    subprocess.run(["mount", *words, str(on)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(on)], check=True, capture_output=True)


def _contents(one: Training) -> dict[str, str]:
    return {str(file): sha256(file) for path in one.checkpoints
            for file in sorted(path.rglob("*")) if file.is_file()}  # fmt: skip


def _stops(one: Training, process: subprocess.Popen[str], words: str) -> str:
    """Its end within the bound: exit code 1, the last line has `words`, no traceback."""
    code = process.wait(BOUND_S)
    said = one.text().strip().splitlines()[-1]
    require(code == 1, f"exit code {code}: {said}")
    require(words in said, f"the last line is {said!r}")
    require("Traceback" not in one.text(), "a traceback")
    return said


def _goes_on(one: Training, resumed: str) -> float:
    """The same command again ends with the weights of an undisturbed run; its seconds."""
    start = time.monotonic()
    code = one.here().wait(900)
    require(code == 0, one.text()[-400:])
    require(f"resumed from {resumed}\n" in one.text(), f"not resumed from {resumed}")
    one.same("one rank")
    return time.monotonic() - start


def disk_full(rig: Rig, number: int) -> Seen:
    """A disk that fills up during a run, at another byte of the checkpoint each time."""
    one = rig.training(f"disk-full-{number}")
    runs = one.root / "runs"
    runs.mkdir()
    with mounted(runs, "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs"):
        process = one.here()
        until("a first checkpoint", lambda: one.newest or process.poll() is not None)
        fault, ballast, free = time.monotonic(), runs / "ballast", os.statvfs(runs)
        left = number * STEP
        with ballast.open("wb") as handle:
            size = free.f_bavail * free.f_frsize - left
            os.posix_fallocate(handle.fileno(), 0, max(size, 4096))
        said = _stops(one, process, "No space left on device")
        detected = time.monotonic() - fault
        reached = one.newest
        require(bool(reached), "no checkpoint is left")
        ballast.unlink()
        _goes_on(one, reached)
    return Seen("stopped clearly", said, detected, more={"bytes_left": left})


def read_only(rig: Rig, number: int) -> Seen:
    """The data root is mounted read-only when a run is to go on: refused, nothing is changed."""
    one = rig.training(f"read-only-{number}")
    require(one.here(kimg=0.032).wait(900) == 0, one.text()[-300:])
    before, fault, log = _contents(one), time.monotonic(), rig.work / f"read-only-{number}.txt"
    with mounted(one.root, "--bind", "-o", "ro", str(one.root)):
        code = one.here(log=log).wait(BOUND_S)
    text = log.read_text()
    said = text.strip().splitlines()[-1]
    require(code == 1, f"exit code {code}: {said}")
    require("Read-only file system" in said and "Traceback" not in text, said)
    require(_contents(one) == before, "something was changed")
    detected = time.monotonic() - fault
    _goes_on(one, "kimg-000000.032")
    return Seen("stopped clearly", said, detected)


def _cut(path: Path, other: Path) -> None:
    file = path / "G.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def _flip(path: Path, other: Path) -> None:
    file = path / "zero/D.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)


def _unmark(path: Path, other: Path) -> None:
    (path / "COMPLETE").unlink()


def _empty_marker(path: Path, other: Path) -> None:
    (path / "COMPLETE").write_text("")


def _swap(path: Path, other: Path) -> None:
    for name in ("D", "zero/D"):  # both hold what they should, of another moment
        shutil.copy2(other / f"{name}.safetensors", path / f"{name}.safetensors")


def _empty_state(path: Path, other: Path) -> None:
    (path / "state.json").write_text("")


def _lose(path: Path, other: Path) -> None:
    (path / "zero/G.safetensors").unlink()


def _misname(path: Path, other: Path) -> None:
    """An older checkpoint, whole, under the newest one's name."""
    shutil.rmtree(path)
    shutil.copytree(other, path)


ALTERED: list[Callable[[Path, Path], None]] = [
    _cut, _flip, _unmark, _empty_marker, _swap, _empty_state, _lose, _misname,
]  # fmt: skip


def altered_checkpoint(rig: Rig, number: int) -> Seen:
    """The newest checkpoint cut, flipped, unmarked, mixed with another: the one before is used."""
    one = rig.training(f"altered-{number}")
    require(one.here(kimg=0.048).wait(900) == 0, one.text()[-300:])
    before, newest = one.checkpoints[-2:]
    alter = ALTERED[number % len(ALTERED)]
    alter(newest, before)
    if alter is _misname:  # nothing is torn: its own state says how far it is
        code = one.here().wait(900)
        require(code == 0, one.text()[-400:])
        one.same("one rank")
        return Seen("resumed", one.lines("^resumed from|passed over|rejected")[0])
    _goes_on(one, before.name)
    said = one.lines(f"checkpoint {newest.name} passed over: ")
    require(bool(said), "what was passed over is not said")
    return Seen("resumed", said[0], more={"altered": alter.__name__.strip("_")})


DAY = 86400
CLOCKS = ((DAY, None, 1), (-DAY, None, 1), (0, -DAY, 0), (0, DAY, 0))


def clock_skew(rig: Rig, number: int) -> Seen:
    """One rank's clock a day ahead or behind, or rank 0's jumping by a day during the run."""
    one = rig.training(f"clock-{number}")
    first, then, rank = CLOCKS[number % len(CLOCKS)]
    clock, shim = one.root / "clock", one.root / "clock.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", shim, SHIM], check=True)
    clock.write_text(f"{first}\n")
    wrong = {"LD_PRELOAD": str(shim), "CLOCK_OFFSET_FILE": str(clock)}
    port = str(21000 + os.getpid() % 9000 + number)
    group = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [one.here(env={**group, "RANK": str(each), **(wrong if each == rank else {})})
             for each in (0, 1)]  # fmt: skip
    if then is not None:
        until("a first checkpoint", lambda: one.newest or ranks[0].poll() is not None)
        write_text(clock, f"{then}\n")
    codes = [each.wait(300) for each in ranks]
    require(codes == [0, 0], f"exit codes {codes}: {one.text()[-400:]}")
    one.same("two ranks")
    return Seen(
        "not disturbed", one.lines("^state: done")[0], more={"clock_s": [first, then], "rank": rank}
    )


CASES = {
    "disk full": (disk_full, 12),
    "read-only data root": (read_only, 2),
    "newest checkpoint altered": (altered_checkpoint, len(ALTERED)),
    "clock skew": (clock_skew, len(CLOCKS)),
}
