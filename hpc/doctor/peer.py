"""Two processes try renames and locks in one folder: ``python -m hpc.doctor.peer FOLDER``.

sunpipe trusts that a reader finds the old file or the new one, never none or a
torn one, and that a lock is seen by all nodes and goes with its holder. The first
process (`play`) tells the second one through a pipe what to do.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.doctor.leftovers import current
from sunpipe.errors import DataError
from sunpipe.lock import lock_file

BLOCKS = 512  # lines of one generation, 8 KiB
READ_S = 0.8
PATIENCE_S = 60.0  # srun may have to wait for a node
DROP_S = 10.0  # for a lock to go with its holder


@dataclass(frozen=True)
class Seen:
    """What was tried, in words; `fault`: it is not as it must be."""

    words: str
    fault: bool = False


def generation(number: int) -> str:
    """Content of a file whose every line tells which generation it is of."""
    return f"{number:015d}\n" * BLOCKS


def read_generation(text: str) -> int | None:
    """Number of a whole generation; None for a torn one."""
    lines = text.splitlines()
    whole = len(lines) == BLOCKS and len(set(lines)) == 1 and lines[0].isdigit()
    return int(lines[0]) if whole else None


def _replace(folder: Path, number: int) -> None:
    temporary = folder / "next"
    temporary.write_text(generation(number))
    os.replace(temporary, folder / "value")


class _Peer:
    """The other process: a line to it, a line from it within a time limit."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = current().start(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0,  # what is read ahead, select does not see
        )  # fmt: skip

    def tell(self, word: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def hear(self, patience: float) -> str:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            late = "" if ready else f" within {patience:g} s"
            self.end()
            assert self.process.stderr
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines()
            raise DataError(f"the second process gave no answer{late}: "
                            f"{said[-1] if said else 'it said nothing'}")  # fmt: skip
        return line.decode(errors="replace").strip()

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(3.0)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def play(folder: Path, command: Sequence[str]) -> tuple[Seen, Seen, str]:
    """Try it with the process that `command` starts.

    Returns
    -------
    renames, locks : Seen
    node : str
        Where the other process runs.

    Raises
    ------
    DataError
        The other process cannot be started or does not answer.
    """
    _replace(folder, 0)
    try:
        other = _Peer(command)
    except OSError as error:
        raise DataError(f"{command[0]}: {error.strerror or error}") from None
    try:
        while (first := other.hear(PATIENCE_S)).partition(" ")[0] != "ready":
            continue  # what a set-up file prints
        node = first.partition(" ")[2]
        renames = _renames(folder, other)
        return renames, _locks(folder, other), node
    except BrokenPipeError:
        raise DataError("the second process ended early") from None
    finally:
        other.end()
        for pipe in (other.process.stdin, other.process.stdout, other.process.stderr):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:  # a word that it did not live to hear
                    continue


def _renames(folder: Path, other: _Peer) -> Seen:
    other.tell("read")
    end, made = time.monotonic() + READ_S, 0
    while time.monotonic() < end:
        made += 1
        _replace(folder, made)
    word, _, detail = other.hear(READ_S + PATIENCE_S).partition(" ")
    if word != "whole":
        return Seen(f"a file that was replaced {made} times was seen {word} ({detail})", True)
    reads, generations = detail.split()
    return Seen(f"{made} replacements, {reads} reads of {generations} generations, all whole")


def _locks(folder: Path, other: _Peer) -> Seen:
    def asked() -> str:
        other.tell("lock")
        return other.hear(PATIENCE_S)

    def free() -> bool:
        try:
            lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    with open(folder / "lock", "w+") as handle:
        try:
            free()
        except DataError as error:
            return Seen(str(error).partition(";")[0], True)
        if (answer := asked()) != "busy":
            return Seen(f"a lock that was held was {answer} for another process", True)
        lock_file(handle, fcntl.LOCK_UN)
        if (answer := asked()) != "got":
            return Seen(f"a lock that was given up was {answer} for another process", True)
        if free():
            return Seen("a lock was held by two processes at once", True)
        other.tell("die")
        started = time.monotonic()
        while not free():
            if time.monotonic() - started > DROP_S:
                return Seen(f"a lock is held {DROP_S:g} s after its holder was killed", True)
            time.sleep(0.01)
        took = time.monotonic() - started
        return Seen(f"held by one at a time, free {took * 1000:.0f} ms after its holder was killed")


def _read_for_a_while(folder: Path) -> str:
    end = time.monotonic() + READ_S
    reads, seen, newest = 0, set(), -1
    while time.monotonic() < end:
        try:
            number = read_generation((folder / "value").read_text())
        except FileNotFoundError:
            return f"missing after {reads} reads"
        except OSError as error:
            return f"unreadable {error.strerror} after {reads} reads"
        if number is None:
            return f"torn after {reads} reads"
        if number < newest:
            return f"older: {number} after {newest}"
        newest = number
        reads += 1
        seen.add(number)
    return f"whole {reads} {len(seen)}"


def main() -> None:
    """The second process: does what it is told until its pipe ends."""
    folder = Path(sys.argv[1])
    print("ready", os.environ.get("SLURMD_NODENAME") or socket.gethostname(), flush=True)
    with open(folder / "lock", "w+") as handle:
        for line in sys.stdin:
            if line.strip() == "read":
                print(_read_for_a_while(folder), flush=True)
            elif line.strip() == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif line.strip() == "lock":
                try:
                    lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    print("got", flush=True)
                except BlockingIOError:
                    print("busy", flush=True)
                except DataError as error:
                    print(f"refused ({error})", flush=True)


if __name__ == "__main__":
    main()
