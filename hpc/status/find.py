"""The runs that ``sunpipe status`` is asked for: all, or by name, number or folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc.status.runs import RunLine, read_run
from hpc.status.text import plain
from sunpipe.errors import DataError

FOLDER = re.compile(r"\d{5}-.+", re.DOTALL)
MARKS = ("config.json", "status.json")  # one of them is in every run folder
SHOWN = 15  # runs without --all; those that run, wait, or are lost, come first


def find_runs(runs: Path) -> list[Path]:
    """Run folders, ``<NNNNN>-<name>``; none where there is no such folder yet.

    Raises
    ------
    DataError
        It cannot be read.
    """
    try:
        found = [path for path in runs.iterdir() if FOLDER.fullmatch(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{runs} cannot be read ({error.strerror or error})") from None
    return sorted(path for path in found if _is_folder(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a loop of links
        return False


def _is_run(path: Path) -> bool:
    try:
        return any((path / mark).is_file() for mark in MARKS)
    except (OSError, ValueError):
        return False


def _chosen(runs: Path, found: Sequence[Path], asked: str) -> list[Path]:
    """Folders that one word names.

    A word with a slash is a folder, of this data root or another one, and never a name.
    """
    given = Path(asked)
    if "/" in asked or asked in (".", ".."):
        for path in (given, runs.parent / given):
            if _is_run(path):
                return [path.resolve()]
        raise DataError(f"{plain(asked, 200)} is not the folder of a run")
    fits = [path for path in found if asked in (path.name, path.name.partition("-")[2])]
    if not fits and asked.isascii() and asked.isdecimal():
        fits = [path for path in found if int(path.name[:5]) == int(asked[:9])]
    if not fits and asked and _is_run(given):
        fits = [given.resolve()]
    if not fits:
        some = ", ".join(plain(path.name, 60) for path in found[-5:]) or "none"
        raise DataError(f"no run {plain(asked, 80)!r} under {runs}; the newest are: {some}")
    return fits


def read_runs(
    runs: Path, wanted: Sequence[str], jobs: Mapping[str, str] | None, now: float | None = None
) -> list[RunLine]:
    """Lines of all runs under `runs`, or of those that `wanted` names.

    Parameters
    ----------
    wanted : sequence of str
        Each the name of an experiment, of a run folder, its number, or a folder.
    jobs : mapping of str to str, or None
        As `hpc.status.runs.read_run` takes it.

    Raises
    ------
    DataError
        A name fits no run, or `runs` cannot be read.
    """
    now = time.time() if now is None else now
    found = find_runs(runs)
    if wanted:
        chosen = [path for name in wanted for path in _chosen(runs, found, name)]
        found = list(dict.fromkeys(chosen))
    return order([read_run(path, jobs, now) for path in found])


def order(lines: Sequence[RunLine]) -> list[RunLine]:
    """Those that run, wait or are lost first, then by their last sign, the newest first."""
    alive = ("running", "waiting", "lost?")
    return sorted(lines, key=lambda line: (line.state not in alive, -line.changed))
