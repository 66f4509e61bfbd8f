"""Whether a run that says it is running does: its job, its lock, its silence."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from hpc.status.text import duration

SILENT_S = 900.0  # longer than a first step that compiles, an evaluation, or a large checkpoint
TICKS = 5.0  # of its own length, that a slow run may be silent
FRESH_S, FRESH_TICKS = 60.0, 2.0  # since a sign that outweighs a queue without the job


def lock_held(path: Path, table: str | None = None, mounts: str | None = None) -> bool | None:
    """Whether a process of this machine holds the ``flock`` on `path`; None where it is not told.

    It is read from ``/proc/locks`` (proc_locks(5)): trying the lock would take it for a
    moment, and a training that starts just then would be refused. Locks are listed by the
    device of the file system, which stat(2) does not give on Btrfs, where each subvolume has
    a number of its own, nor for all files of an overlay: the table of mounts has it.

    Parameters
    ----------
    table, mounts : str, optional
        ``/proc/locks`` and ``/proc/self/mountinfo``; read if not given.
    """
    try:
        there = path.stat()
        text = Path("/proc/locks").read_text(encoding="ascii") if table is None else table
        if mounts is None:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        mount = _mount_id(path)
    except (OSError, ValueError):
        return None
    own = f"{os.major(there.st_dev)}:{os.minor(there.st_dev)}"
    device, kind = _file_system(mounts, mount)
    held = {place for line in text.splitlines() if "->" not in line
            and re.search(r"\bFLOCK\b", line)
            for place in re.findall(r" ([0-9a-f]+:[0-9a-f]+:\d+) ", line)}  # fmt: skip
    if {_place(one, there.st_ino) for one in (own, device) if one} & held:
        return True
    # An overlay may list a file by the number that it has in the layer below.
    return False if device == own or (device and kind == "btrfs") else None


def _place(device: str, inode: int) -> str:
    """As ``/proc/locks`` writes it."""
    major, _, minor = device.partition(":")
    return f"{int(major):02x}:{int(minor):02x}:{inode}"


def _mount_id(path: Path) -> str:
    """Number of the mount that holds `path`: proc_pid_fdinfo(5). The file is not opened."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rows = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii").splitlines()
    finally:
        os.close(handle)
    return next((row.split()[1] for row in rows if row.startswith("mnt_id:")), "")


def _file_system(mounts: str, mount: str) -> tuple[str, str]:
    """``major:minor`` and type of a mount: proc_pid_mountinfo(5); empty where it is not there."""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 2 and fields[0] == mount and re.fullmatch(r"\d+:\d+", fields[2]):
            return fields[2], after.partition(" ")[0]
    return "", ""


def fresh(silent_s: float, tick_s: float | None) -> bool:
    """Whether a run gave a sign so lately that it lives, whatever this Slurm knows of its job.

    Parameters
    ----------
    silent_s : float
        Since its files changed.
    tick_s : float or None
        Length of its last tick.
    """
    return silent_s < max(FRESH_S, FRESH_TICKS * (tick_s or 0.0))


def sign_of_life(
    job: str | None, jobs: Collection[str] | None, lock: bool | None, silent_s: float,
    tick_s: float | None,
) -> str:  # fmt: skip
    """Why a run that says it is running counts as lost; empty if it does not.

    Parameters
    ----------
    job : str or None
        Slurm job it was started in.
    jobs : collection of str or None
        Jobs that have not ended; None where Slurm does not tell.
    lock : bool or None
        Whether its lock is held on this machine; None where that is not known.
    silent_s : float
        Since its files changed.
    tick_s : float or None
        Length of its last tick.
    """
    patience = max(SILENT_S, TICKS * (tick_s or 0.0))
    if job is not None and jobs is not None:
        if job not in jobs:
            return f"job {job} is not in the queue any more"
    elif lock is not None:
        return "" if lock else "no process of this machine holds its lock"
    if silent_s > patience:
        return f"silent for {duration(silent_s)}" + (f", though job {job} is there" if job and jobs
                                                     else "")  # fmt: skip
    return ""
