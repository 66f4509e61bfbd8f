"""The data root: shared, writable, with room; renames and locks as they must be."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc.doctor import peer
from hpc.doctor.ask import ask
from hpc.doctor.file_systems import Mount, existing, find_mount
from hpc.doctor.finding import BUSY, Finding, not_free
from hpc.doctor.leftovers import current
from hpc.doctor.place import Place, on_nodes, python_on_nodes
from hpc.launch import SAFE_PATH
from hpc.status.text import plain
from sunpipe.errors import DataError

GIB = 2**30
ELSEWHERE = "export SUNPIPE_ROOT=<a folder on the cluster's scratch or project file system>"
ASK_NODES = "sunpipe doctor --srun: sees whether the nodes have it"
LITTLE_BYTES, NO_BYTES = 20 * GIB, GIB  # a 1024 checkpoint of all moments is about 0.7 GB
LITTLE_FILES, NO_FILES = 100_000, 1_000
QUOTA = {"lustre": "lfs quota -h -u $USER {point}", "gpfs": "mmlsquota --block-size auto",
         "nfs": "quota -s", "nfs4": "quota -s", "xfs": "quota -s", "ext4": "quota -s",
         "beegfs": "beegfs-ctl --getquota --uid $USER"}  # fmt: skip


@contextmanager
def trial_folder(root: Path) -> Iterator[Path]:
    """A folder in `root`, or in the nearest one above it, that is removed again."""
    folder = current().folder(existing(root), ".tmp-doctor-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge_mount(root: Path, mount: Mount | None, nodes: int, elsewhere: bool = False) -> Finding:
    """Whether a file system of this type serves as a data root.

    Parameters
    ----------
    nodes : int
        That are to share it.
    elsewhere : bool
        They are other machines than this one, so that even a single one must reach it.
    """
    if mount is None:
        return Finding("data root", "WARN", f"{root}: the type of its file system is not known",
                       ASK_NODES)  # fmt: skip
    seen = f"{root} on {mount.kind} ({mount.point})"
    if mount.read_only:
        return Finding("data root", "MISS", f"{seen} is mounted read-only", ELSEWHERE)
    if mount.shared or not (elsewhere or nodes > 1):
        return Finding("data root", "OK", f"{seen}{', shared' if mount.shared else ''}")
    for_whom = f"{nodes} nodes are to share it" if nodes > 1 else (
        "a stage runs on another node")  # fmt: skip
    if mount.shared is False:
        return Finding("data root", "WARN", f"{seen}: a disk of this machine, but {for_whom}",
                       f"{ELSEWHERE}; where this machine exports that disk: {ASK_NODES}"
                       )  # fmt: skip
    return Finding("data root", "WARN", f"{seen}: may be of this machine alone, and {for_whom}",
                   ASK_NODES)  # fmt: skip


def data_root(place: Place) -> Finding:
    """The data root is on a file system that its nodes share, and can be written to."""
    above = existing(place.root)
    there = next(one for one in (place.root, *place.root.parents) if one.exists())
    if there != above:
        return Finding("data root", "MISS", f"{there} is no folder", ELSEWHERE)
    if place.where == "login" and not SAFE_PATH.fullmatch(str(place.root)):
        return Finding("data root", "MISS", f"{str(place.root)!r}: of what is launched on Slurm,"
                       " only letters, digits and /_.+@,=~- can be in its name", ELSEWHERE
                       )  # fmt: skip
    # jobs of a profile run on its nodes, and this is one of them only inside an allocation
    elsewhere = place.profile is not None and place.where != "allocation"
    found = judge_mount(place.root, find_mount(above), place.nodes, elsewhere)
    if found.level == "MISS":
        return found
    try:
        with trial_folder(place.root):
            pass
    except OSError as error:
        return Finding("data root", "MISS", f"{above} cannot be written to ({error.strerror})",
                       ELSEWHERE)  # fmt: skip
    return found


def judge_space(free: int, size: int, files: int | None, hint: str) -> Finding:
    """Whether there is room.

    Parameters
    ----------
    free, size : int
        Bytes.
    files : int or None
        Files that it still takes; None where it does not count them.
    hint : str
        Command that shows a quota, which need not show in the numbers of the disk.
    """
    counted = "" if files is None else f", {files:,} files more"
    seen = f"{free / GIB:,.1f} of {size / GIB:,.1f} GiB free{counted}"
    fix = f"remove what is not needed; see your quota: {hint}"
    if free < NO_BYTES or (files is not None and files < NO_FILES):
        return Finding("disk space", "MISS", seen, fix)
    if free < LITTLE_BYTES or (files is not None and files < LITTLE_FILES):
        return Finding("disk space", "WARN", seen, fix)
    return Finding("disk space", "OK", f"{seen}; a quota may be lower: {hint}")


def space(place: Place) -> Finding:
    """Free bytes and files of the disk of the data root."""
    above = existing(place.root)
    disk = os.statvfs(above)
    mount = find_mount(above)
    hint = QUOTA.get(mount.kind if mount else "", "quota -s").format(
        point=mount.point if mount else "")  # fmt: skip
    files = disk.f_favail if disk.f_files else None
    return judge_space(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize, files, hint)


def renames(place: Place) -> list[Finding]:
    """Renames are seen whole and locks hold between two processes, on two nodes where it can."""
    return _tried(place, [sys.executable, "-u", "-m", "hpc.doctor.peer"], "")


def renames_across(place: Place) -> list[Finding]:
    """The same between this machine and another node."""
    if place.srun is None:
        return []
    command = on_nodes(place, 1, 1, *python_on_nodes(place, "-u", "-m", "hpc.doctor.peer"))
    here = os.environ.get("SLURMD_NODENAME")
    others = _others(place, here)
    if others:
        command[1:1] = [f"--nodelist={others[0]}"]
    elif place.where == "allocation":
        return []  # one node: tried already
    command[1:1] = ["--unbuffered", "--quiet"]
    return _tried(place, command, " across nodes")


def _others(place: Place, here: str | None) -> list[str]:
    if place.where != "allocation":
        return []
    listed = ask(["scontrol", "show", "hostnames", place.env.get("SLURM_JOB_NODELIST", "")], 10.0)
    return [name for name in listed.out.split() if name != here]


def _tried(place: Place, command: list[str], across: str) -> list[Finding]:
    names = f"renames{across}", f"locks{across}"
    try:
        with trial_folder(place.root) as folder:
            seen = peer.play(folder, [*command, str(folder)])
    except OSError as error:  # `data_root` and `space` say the same of it
        return [Finding(names[0], "MISS", f"could not be tried: {error.strerror or error}",
                        "see what is said of the data root and of disk space")]  # fmt: skip
    except DataError as error:
        if BUSY in str(error):
            return [not_free(names[0], 1)]
        by_hand = "srun hostname" if across else f"{sys.executable} -c 'import hpc.doctor.peer'"
        return [Finding(names[0], "MISS", f"could not be tried: {plain(error)}",
                        f"try: {by_hand}")]  # fmt: skip
    rename, lock, node = seen
    between = f"between this machine and node {plain(node, 60)}" if across else (
        "between two processes here")  # fmt: skip
    return [
        Finding(names[0], "MISS" if rename.fault else "OK", f"{rename.words}, {between}",
                ELSEWHERE if rename.fault else ""),
        Finding(names[1], "MISS" if lock.fault else "OK", f"{lock.words}, {between}",
                "mount with locks (Lustre: -o flock, not localflock; NFS: a running lockd), or"
                f" {ELSEWHERE}" if lock.fault else ""),
    ]  # fmt: skip
