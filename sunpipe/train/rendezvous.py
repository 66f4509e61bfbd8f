"""How ranks find each other: rank 0 listens, the others come, who is missing is named.

All faults end within a bounded time in one line with the rank, its peer and the
port: a host name that is not known, a port that another program holds, nobody
there, ranks that never started. A port that was derived from the job's number
may be taken by chance; then all ranks try the next derived one.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import torch.distributed as torch_dist

from sunpipe.dist import Ranks, job_port
from sunpipe.errors import RankLost, SunpipeError

PATIENCE_S = 120.0  # for all ranks to come, at most
KNOCK_S = 5.0  # for somebody who took the call to say who it is


def meet(ranks: Ranks, timeout_s: float) -> torch_dist.Store:
    """The store that all ranks share, once all have come.

    Parameters
    ----------
    timeout_s : float
        Patience of the store's later calls; ranks are awaited for that long, and
        at most `PATIENCE_S`.

    Raises
    ------
    SunpipeError
        The ranks did not come together; the message says who missed whom where.
    """
    if ranks.world == 1:
        return torch_dist.HashStore()
    patience = min(timeout_s, PATIENCE_S)
    end = time.monotonic() + patience
    _known(ranks)
    door: socket.socket | None = None
    port = ranks.master_port
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # torchrun has one already
        store = _store(ranks, ranks.master_port, is_master=False)
    elif ranks.is_main:
        store, door = _listen(ranks)
        port = door.getsockname()[1]
    else:
        store, port = _call(ranks, end, patience)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = torch_dist.PrefixStore(f"sunpipe/{attempt}", store)
    try:
        _roll_call(ranks, shared, f"{ranks.master_addr} on port {port}", end, patience)
    finally:
        if door is not None:
            with suppress(OSError):  # wakes the thread that waits there, or the port stays taken
                door.shutdown(socket.SHUT_RDWR)
            door.close()
    shared.set_timeout(timedelta(seconds=timeout_s))
    return shared


def ports(ranks: Ranks) -> list[int]:
    """Where rank 0 may listen: one port that was given, or three derived from the job's number."""
    if ranks.source not in ("slurm", "mpi") or "MASTER_PORT" in os.environ:
        return [ranks.master_port]
    return [ranks.master_port, *(job_port(f"{ranks.master_port}/{n}") for n in (1, 2))]


def job_token(ranks: Ranks) -> str:
    """What tells this start of this job from any other that listens on the same port."""
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return ".".join([*(os.environ.get(key, "0") for key in keys), str(ranks.world)])


def names(numbers: Sequence[int]) -> str:
    """``rank 3`` or ``ranks 0, 4, 5 and 9 more``."""
    shown = ", ".join(map(str, numbers[:8]))
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _known(ranks: Ranks) -> None:
    try:
        socket.getaddrinfo(ranks.master_addr, None)
    except OSError:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world}: no machine is known by the name"
            f" {ranks.master_addr!r}, where rank 0 should be; set MASTER_ADDR"
        ) from None


def listener(port: int, backlog: int) -> socket.socket:
    """A socket that takes calls at every address of this machine, of whichever kind.

    Parameters
    ----------
    port : int
        0 for any that is free.
    backlog : int
        Calls that may wait to be taken.

    Raises
    ------
    OSError
        The port is taken.
    """
    if socket.has_dualstack_ipv6():
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, backlog=backlog,
                                        dualstack_ipv6=True)  # fmt: skip
    return socket.create_server(("", port), backlog=backlog)


def _open_door(ranks: Ranks) -> socket.socket:
    for port in ports(ranks):
        with suppress(OSError):
            return listener(port, ranks.world)
    tried = " and ".join(map(str, ports(ranks)))
    raise SunpipeError(
        f"rank 0 of {ranks.world} cannot listen at {ranks.master_addr} on port {tried}: taken by"
        " another program; set MASTER_PORT to a free one"
    )


def _welcome(door: socket.socket, words: bytes) -> None:
    """Tell every caller who this is and where the store listens, until the door is shut."""
    while True:
        try:
            line, _ = door.accept()
        except OSError:
            return
        with line, suppress(OSError):
            line.settimeout(KNOCK_S)
            line.sendall(words)


def _listen(ranks: Ranks) -> tuple[torch_dist.TCPStore, socket.socket]:
    """Rank 0's store on a free port, and the door on the agreed one that tells where it is.

    A client of torch's store waits for ever when another program holds its port;
    behind a door that is asked first it cannot meet one.
    """
    door = _open_door(ranks)
    store = _store(ranks, 0, is_master=True)
    words = f"sunpipe {job_token(ranks)} {store.port}\n".encode()
    threading.Thread(target=_welcome, args=(door, words), name="door", daemon=True).start()
    return store, door


def _store(ranks: Ranks, port: int, is_master: bool) -> torch_dist.TCPStore:
    try:
        return torch_dist.TCPStore(
            ranks.master_addr, port, is_master=is_master, wait_for_workers=False,
            timeout=timedelta(seconds=PATIENCE_S),
        )  # fmt: skip
    except (torch_dist.DistError, RuntimeError) as error:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world} cannot connect to rank 0 at"
            f" {ranks.master_addr}:{port or 'a free port'} ({str(error).splitlines()[0]})"
        ) from None


def _call(ranks: Ranks, end: float, patience: float) -> tuple[torch_dist.TCPStore, int]:
    foreign: set[int] = set()
    while time.monotonic() < end:
        for port in ports(ranks):
            answer = _knock(ranks, port)
            if isinstance(answer, int):
                return _store(ranks, answer, is_master=False), port
            foreign |= {port} if answer == "foreign" else set()
        time.sleep(0.1)
    tried = " and ".join(map(str, ports(ranks)))
    heard = f" (another program answers on {' and '.join(map(str, sorted(foreign)))})"
    raise SunpipeError(
        f"rank {ranks.rank} of {ranks.world} did not find rank 0 at {ranks.master_addr} on port"
        f" {tried} within {patience:.0f} s{heard if foreign else ''}: it did not start, or a"
        " firewall is between them"
    )


def _knock(ranks: Ranks, port: int) -> int | str:
    """The port of rank 0's store; else ``nobody``, or ``foreign`` if it is not our rank 0."""
    try:
        line = socket.create_connection((ranks.master_addr, port), timeout=KNOCK_S)
    except OSError:
        return "nobody"
    with line, suppress(OSError):
        words = line.makefile("rb").readline(200).split()
        if words[:2] == [b"sunpipe", job_token(ranks).encode()]:
            return int(words[2])
    return "foreign"


def _roll_call(
    ranks: Ranks, store: torch_dist.Store, where: str, end: float, patience: float
) -> None:
    try:
        store.set(f"here/{ranks.rank}", socket.gethostname())
        if ranks.is_main:
            awaited = list(range(1, ranks.world))
            while awaited and time.monotonic() < end:
                awaited = [r for r in awaited if not store.check([f"here/{r}"])]
                time.sleep(0.02)
            store.set("missing", ",".join(map(str, awaited)))
            if awaited:
                time.sleep(1.0)  # the others hear it before the store is gone
        else:
            store.wait(["missing"], timedelta(seconds=patience + KNOCK_S))
            answer = store.get("missing").decode()
            awaited = [int(word) for word in answer.split(",")] if answer else []
    except (torch_dist.DistError, RuntimeError):
        raise RankLost(
            f"rank {ranks.rank} of {ranks.world} lost rank 0 at {where} while it waited for the"
            " others"
        ) from None
    if awaited:
        raise SunpipeError(
            f"rank {ranks.rank} of {ranks.world} waited {patience:.0f} s at {where}, but"
            f" {names(awaited)} did not come; see why they did not start"
        )
