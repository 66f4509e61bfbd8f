"""Which file system a folder is on, and whether other nodes can see it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# Types as /proc/self/mountinfo names them. Others (overlay, fuse of unknown kind) may be either.
SHARED = frozenset(("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "pvfs2",
                    "orangefs", "cifs", "smb3", "glusterfs", "fuse.glusterfs", "fuse.ceph",
                    "fuse.sshfs", "fuse.juicefs", "daos", "fuse.daos", "afs", "virtiofs",
                    "9p"))  # fmt: skip
LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "f2fs",
                   "bcachefs"))  # fmt: skip


@dataclass(frozen=True)
class Mount:
    """One mounted file system.

    Attributes
    ----------
    point : str
        Where it is mounted.
    kind : str
        Its type, for example ``lustre``.
    read_only : bool
    """

    point: str
    kind: str
    read_only: bool

    @property
    def shared(self) -> bool | None:
        """Whether other nodes can see it; None where the type does not tell."""
        if self.kind in SHARED:
            return True
        return False if self.kind in LOCAL else None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def parse_mounts(text: str) -> list[Mount]:
    """Mounts of ``/proc/self/mountinfo`` (proc_pid_mountinfo(5)), in its order."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, more = before.split(), after.split()
        if not dash or len(fields) < 6 or len(more) < 3:
            continue
        options = {*fields[5].split(","), *more[2].split(",")}
        found.append(Mount(_unescape(fields[4]), more[0], "ro" in options))
    return found


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount that holds `path`: the deepest, and of those on one point the last."""
    real = os.path.realpath(path)
    held = [one for one in mounts
            if real == one.point or real.startswith(one.point.rstrip("/") + "/")]  # fmt: skip
    deepest = max((len(one.point) for one in held), default=0)
    return next((one for one in reversed(held) if len(one.point) == deepest), None)


def find_mount(path: Path) -> Mount | None:
    """The mount that holds `path` on this machine; None where ``/proc`` does not tell."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return mount_of(path, parse_mounts(text))


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.parents) if one.is_dir())
