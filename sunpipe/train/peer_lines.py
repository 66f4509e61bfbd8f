"""The connection of every rank with rank 0 that is kept beside the process group."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

import torch.distributed as torch_dist

from sunpipe.dist import Ranks
from sunpipe.errors import SunpipeError
from sunpipe.train.rendezvous import KNOCK_S, job_token, listener, names

Lines = dict[int, socket.socket]
SPARE = 16  # places in the queue for callers that are not of the job
PORT = "peers/port"
DRAIN_S = 1.0  # for last words to be taken


def connect(ranks: Ranks, store: torch_dist.Store, timeout_s: float) -> Lines:
    """Rank 0: a connection with every other rank; the others: one with rank 0.

    Raises
    ------
    SunpipeError
        Not all have come within `timeout_s`; the message says who misses whom.
    """
    try:
        if not ranks.is_main:
            port = int(store.get(PORT))
            line = socket.create_connection((ranks.master_addr, port), timeout=KNOCK_S)
            line.sendall(f"{job_token(ranks)} {ranks.rank}\n".encode())
            return {0: line}
        with listener(0, ranks.world + SPARE) as door:
            store.set(PORT, str(door.getsockname()[1]))
            return accept(door, ranks, timeout_s)
    except (OSError, RuntimeError) as error:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world}: no second connection with"
            f" {'the others' if ranks.is_main else 'rank 0'} at {ranks.master_addr} ({error}); is"
            " there a firewall between the nodes?"
        ) from None


def accept(door: socket.socket, ranks: Ranks, timeout_s: float) -> Lines:
    """The other ranks' calls at rank 0; a caller that does not name itself is sent away.

    Raises
    ------
    TimeoutError
        A rank did not call within `timeout_s`.
    """
    lines: Lines = {}
    end = time.monotonic() + timeout_s
    while missing := sorted(set(range(1, ranks.world)) - set(lines)):
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            door.settimeout(left)
            line, _ = door.accept()
        except TimeoutError:
            raise TimeoutError(f"{names(missing)} did not call within {timeout_s:g} s") from None
        except OSError:  # gone before it was answered
            time.sleep(0.05)
            continue
        caller = _caller(line, ranks)
        if caller in missing:
            lines[caller] = line
        else:
            line.close()  # a passer-by, for example a port scanner
    return lines


def _caller(line: socket.socket, ranks: Ranks) -> int | None:
    """The rank that a caller says it is, None if it is not one of this job's others."""
    end, words = time.monotonic() + KNOCK_S, b""
    with suppress(OSError):  # silent, or gone: of no concern to the job
        while not words.endswith(b"\n") and len(words) < 200:
            line.settimeout(max(end - time.monotonic(), 0.01))
            letter = line.recv(1)  # what follows the name is not for this function
            if not letter:
                return None
            words += letter
    token, _, number = words.rstrip(b"\n").rpartition(b" ")
    known = words.endswith(b"\n") and token == job_token(ranks).encode() and number.isdigit()
    return int(number) if known and 0 < int(number) < ranks.world else None


class Wires:
    """Lines of words over the connections with peers; nothing here waits for a peer.

    A node that is frozen must not keep the others from being heard: what its ranks do not
    take is kept, and goes before the next line, so that none is torn.
    """

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._unsent = dict.fromkeys(lines, b"")
        self._rest = dict.fromkeys(lines, b"")
        self._lock = threading.Lock()
        for line in lines.values():
            line.setblocking(False)

    def tell(self, peer: int, words: str) -> None:
        """Send a line; a beat only if all before it was taken."""
        with self._lock:
            rest = self._unsent[peer]
            if not (rest and words.startswith("beat")):
                rest += words.encode() + b"\n"
            self._unsent[peer] = self._sent(peer, rest)

    def _sent(self, peer: int, rest: bytes) -> bytes:
        try:
            while rest:
                rest = rest[self.lines[peer].send(rest) :]
        except BlockingIOError:
            return rest  # it has not read for a while
        except OSError:
            return b""  # its end is found where it is read
        return rest

    def heard(self, peer: int) -> list[str] | None:
        """Whole lines of a peer that has sent something; None when its connection has ended."""
        try:
            found = self.lines[peer].recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not found:
            return None
        *lines, self._rest[peer] = (self._rest[peer] + found).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        """Close all, after the last words."""
        end = time.monotonic() + DRAIN_S
        with self._lock:
            while any(self._unsent.values()) and time.monotonic() < end:
                time.sleep(0.02)
                self._unsent = {peer: self._sent(peer, rest) for peer, rest in self._unsent.items()}
            for line in self.lines.values():
                line.close()
