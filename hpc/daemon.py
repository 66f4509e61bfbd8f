"""Start daemons, recognise them again, stop exactly those.

A process is ours when its environment carries this cluster's random token and
its pid still has the start time that was written down: pids are reused, and a
name such as ``slurmd`` may belong to somebody else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sunpipe.errors import DataError

TOKEN = "SUNPIPE_CLUSTER_TOKEN"


@dataclass(frozen=True)
class Daemon:
    """A process that was started here.

    Attributes
    ----------
    started : int
        Start time in clock ticks since boot (``/proc/PID/stat``, field 22).
    """

    name: str
    pid: int
    started: int


def parse_stat(text: str) -> tuple[str, int, int]:
    """State, parent and start time from ``/proc/PID/stat``.

    The command's name stands in brackets and may hold spaces and brackets, so
    fields are counted from the last one.
    """
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[1]), int(fields[19])


def _stat(pid: int) -> tuple[str, int, int] | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _has_token(pid: int, token: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's: not ours either way
        return False
    return f"{TOKEN}={token}".encode() in environment


def start(name: str, argv: list[str], log: Path, env: dict[str, str], token: str) -> Daemon:
    """Start `argv` in a session of its own, output to `log`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        argv[0], argv, {**env, TOKEN: token}, setsid=True,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )  # fmt: skip
    stat = _stat(pid)
    if stat is None:
        raise DataError(f"{name} ended at once; see {log}")
    started = Daemon(name, pid, stat[2])
    # The kernel lets us go on a moment before the new program's environment can be read.
    end = time.monotonic() + 1.0
    while not alive(started, token) and time.monotonic() < end:
        time.sleep(0.001)
    return started


def alive(daemon: Daemon, token: str) -> bool:
    """Whether the process still runs and is the one that was started."""
    with suppress(ChildProcessError):  # not our child: nothing to reap
        os.waitpid(daemon.pid, os.WNOHANG)
    stat = _stat(daemon.pid)
    if stat is None or stat[0] in "ZX" or stat[2] != daemon.started:
        return False
    return _has_token(daemon.pid, token)


def stop(daemons: Iterable[Daemon], token: str, patience: float = 5.0) -> None:
    """SIGTERM, wait, SIGKILL; only to processes that are `alive` in the sense above."""
    left = [daemon for daemon in daemons if alive(daemon, token)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for daemon in left:
            with suppress(ProcessLookupError):
                os.kill(daemon.pid, number)
        end = time.monotonic() + patience
        while left and time.monotonic() < end:
            time.sleep(0.02)
            left = [daemon for daemon in left if alive(daemon, token)]


def leftovers(token: str) -> list[int]:
    """Processes that carry the token, and what they started (job steps and their tasks)."""
    parents: dict[int, int] = {}
    marked: set[int] = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        pid = int(entry)
        stat = _stat(pid)
        if stat is None or stat[0] in "ZX" or pid == os.getpid():
            continue
        parents[pid] = stat[1]
        if _has_token(pid, token):
            marked.add(pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in marked} - marked
        marked |= more
        grown = bool(more)
    return sorted(marked)
