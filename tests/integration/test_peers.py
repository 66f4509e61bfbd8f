"""Ranks that die, hang, or never meet: one line that names them, within seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from sunpipe.dist import Ranks, job_port
from sunpipe.errors import EXIT_LOST, SunpipeError
from sunpipe.train import hang, peer_lines, peers, rendezvous
from sunpipe.train.exchanges import is_exchange, reason
from sunpipe.train.hang import HangWatch
from sunpipe.train.peer_lines import accept, connect
from sunpipe.train.progress import Progress
from tests.conftest import free_port
from tests.ranks import run_ranks

LAST = "the last checkpoint is kimg-000001.000; run the same command again to continue"


def lose(
    folder: Path, rank: int | None, deed: str, timeout: float = 60, number: int = 0
) -> tuple[list[list[Any]], float]:
    """Three ranks, of which one is killed or stopped, or misbehaves (all for None)."""
    kept = folder / "checkpoints/kimg-000001.000"
    kept.mkdir(parents=True)
    (kept / "COMPLETE").touch()
    argv = [[str(folder), str(timeout), deed if rank in (r, None) and not number else "none"]
            for r in range(3)]  # fmt: skip
    hit: list[float] = []

    def strike() -> None:
        while not all((folder / f"ready-{r}").exists() for r in range(3)):
            time.sleep(0.02)
        hit.append(time.monotonic())
        if number:
            pid = json.loads((folder / "pids").read_text())[rank or 0]
            os.kill(pid, number)
            if number == signal.SIGSTOP:  # the others are done before it is gone
                time.sleep(timeout + 9)
                os.kill(pid, signal.SIGKILL)

    striker = threading.Thread(target=strike)
    striker.start()
    (ranks,) = run_ranks("tests.peers_check",
                         {"world": 3, "argv": argv, "pids": str(folder / "pids")})  # fmt: skip
    striker.join()
    return ranks, time.monotonic() - hit[0]


def last_words(ranks: list[list[Any]]) -> dict[int, str]:
    """Rank to what it said, of those who said something."""
    return {number: rank[2].strip() for number, rank in enumerate(ranks) if rank[2].strip()}


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_killed_rank_is_named_by_one_of_the_others(tmp_path: Path, victim: int) -> None:
    ranks, seconds = lose(tmp_path, victim, "none", number=signal.SIGKILL)
    assert [rank[0] for rank in ranks] == [-9 if r == victim else EXIT_LOST for r in range(3)]
    said = last_words(ranks)
    if victim:
        assert said == {0: f"sunpipe: rank {victim} ended without a word; {LAST}"}
    else:  # it was the one who speaks
        assert said == {
            r: f"sunpipe: rank 0 ended without a word (seen by rank {r}); {LAST}" for r in (1, 2)
        }
    assert seconds < 30


def test_a_stopped_rank_is_named_after_the_timeout(tmp_path: Path) -> None:
    ranks, _ = lose(tmp_path, 2, "none", timeout=3, number=signal.SIGSTOP)
    assert [rank[0] for rank in ranks] == [EXIT_LOST, EXIT_LOST, -9]
    assert last_words(ranks) == {0: f"sunpipe: rank 2 has not answered for 3 s; {LAST}"}


def test_a_rank_that_is_refused_tells_the_others(tmp_path: Path) -> None:
    ranks, _ = lose(tmp_path, 1, "refuse")
    assert [rank[0] for rank in ranks] == [1, 1, 1]  # a fault to mend: not to be started again
    assert last_words(ranks) == {
        0: f"sunpipe: rank 1 failed (the disk is full); {LAST}",
        1: "sunpipe: the disk is full",
    }


def test_a_rank_that_sleeps_does_not_outlive_rank_0(tmp_path: Path) -> None:
    ranks, seconds = lose(tmp_path, 1, "sleep", timeout=5)
    assert [rank[0] for rank in ranks] == [EXIT_LOST] * 3
    (said,) = last_words(ranks).values()
    assert said.startswith("sunpipe: rank 1 did not come to an exchange (")
    assert seconds < 40


def test_lines_to_a_rank_that_does_not_read_are_not_torn(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr(peers, "connect", lambda *_: {1: here})
    monkeypatch.setattr(peers, "shared_store", lambda: None)
    monkeypatch.setattr(peers, "GRACE_S", 1e6)
    told = peers.Peers(ranks_of(0, 2, 1), timeout_s=60)
    words = [f"answer {letter * 600_000}" for letter in "ab"]
    for line in words:
        told.tell(line)
    there.sendall(b"failed not-a-number\nwaited for long\n")  # a line that is not understood
    heard = b""
    there.settimeout(10)
    while heard.count(b"more\n") < 2 or not told.waited:
        heard += there.recv(65536)
        told.tell("more")
    told.leave()
    assert set(heard.decode().split("\n")[:-1]) - {"beat"} == {*words, "more"}
    assert told.waited == {1: "for long"}
    assert capfd.readouterr().err.count("a fault in the watch for hangs") == 1
    there.close()


def test_ranks_of_a_frozen_node_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for them to read: a thread that did would take its own waits for a pause."""
    pairs = {rank: socket.socketpair() for rank in range(1, 10)}
    for here, _ in pairs.values():
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    monkeypatch.setattr(peers, "connect", lambda *_: {r: pair[0] for r, pair in pairs.items()})
    monkeypatch.setattr(peers, "shared_store", lambda: None)
    monkeypatch.setattr(peers, "GRACE_S", 1e6)
    monkeypatch.setattr(peers, "PAUSE_S", 1.0)
    told = peers.Peers(ranks_of(0, 10, 1), timeout_s=1.5)
    told.tell("stacks" * 10_000)  # more than they take
    until(lambda: len(told.lost) == 9)
    told.leave()
    assert set(told.lost.values()) == {"has not answered for 1.5 s"}
    for _, there in pairs.values():
        there.close()


def test_a_dead_disk_does_not_keep_a_rank_that_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr(peers, "connect", lambda *_: {1: here})
    monkeypatch.setattr(peers, "shared_store", lambda: None)
    told = peers.Peers(ranks_of(0, 2, 1), timeout_s=60)
    told.leave()
    there.close()
    dead = threading.Event()
    monkeypatch.setattr(peers.checkpoint, "complete", lambda _: dead.wait(60) and [])
    monkeypatch.setattr(peers, "WRITE_S", 1.0)
    told.checkpoints, told.lost, told.codes = tmp_path, {1: "ended without a word"}, {1: EXIT_LOST}
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    told._say_and_exit()
    monkeypatch.undo()
    assert codes == [EXIT_LOST]
    said = capfd.readouterr().err
    assert said == ("sunpipe: rank 1 ended without a word; run the same command again to"
                    " continue\n")  # fmt: skip
    dead.set()  # the disk is back
    until(lambda: "rank 1 ended without a word" in capfd.readouterr().err)


@pytest.fixture
def unread_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stderr is a full pipe; at the end it is read, so that no thread is left behind."""
    before = set(threading.enumerate())
    here, there = os.pipe()
    os.set_blocking(there, False)
    with suppress(BlockingIOError):
        while True:
            os.write(there, bytes(65536))
    os.set_blocking(there, True)
    with os.fdopen(here, "rb", buffering=0) as reader:
        drain = threading.Thread(target=reader.readall)
        with os.fdopen(there, "w") as full:
            monkeypatch.setattr(sys, "stderr", full)
            yield
            drain.start()
            for thread in set(threading.enumerate()) - before - {drain}:
                thread.join(60)
            monkeypatch.undo()
        drain.join(60)


@pytest.mark.usefixtures("unread_stderr")
def test_stderr_that_nobody_reads_does_not_keep_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = socket.socketpair()
    monkeypatch.setattr(peers, "connect", lambda *_: {1: here})
    monkeypatch.setattr(peers, "shared_store", lambda: None)
    monkeypatch.setattr(peers, "WRITE_S", 1.0)
    monkeypatch.setattr(hang, "WRITE_S", 0.5)
    monkeypatch.setattr(hang, "FAULT_S", 0.1)
    codes: list[int] = []
    reasons: list[str] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    told = peers.Peers(ranks_of(0, 2, 1), timeout_s=60)
    told.leave()
    there.close()
    told.fail, told.lost, told.codes = reasons.append, {1: "ended"}, {1: EXIT_LOST}
    told._say_and_exit()
    assert codes == [EXIT_LOST]
    until(lambda: reasons)  # status.json has what stderr does not take
    watch = HangWatch(ranks_of(0, 1, 1), Progress(60), tmp_path, reasons.append, leave=codes.append)
    hang.complain(set(), KeyError("path"))
    watch._conclude("it hangs", {0: None})
    assert codes == [EXIT_LOST] * 2
    until(lambda: reasons[1:])
    assert reasons[1:] == ["it hangs"]
    assert len(list(tmp_path.glob("hang-*.txt"))) == 1
    watch.dump.close()


def until(ready: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_waits_for_a_lost_rank_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        looks, put_offs = 0, 0

        def beat(self) -> str:
            return '[0, 1, true, "a step"]'

        def look(self, *_: Any) -> None:
            self.looks += 1

        def put_off(self, now: float) -> None:
            self.put_offs += 1

    here, there = socket.socketpair()
    monkeypatch.setattr(peers, "connect", lambda *_: {1: here})
    monkeypatch.setattr(peers, "shared_store", lambda: None)
    monkeypatch.setattr(peers, "LOOK_S", 0.05)
    monkeypatch.setattr(peers, "GRACE_S", 1e6)
    told, watch = peers.Peers(ranks_of(0, 2, 1), timeout_s=60), Watch()
    told.watch = watch  # type: ignore[assignment]
    until(lambda: watch.looks)
    there.close()
    until(lambda: watch.put_offs)
    looks, put_offs = watch.looks, watch.put_offs
    until(lambda: watch.put_offs >= put_offs + 3)
    assert watch.looks == looks
    told.leave()
    assert told.lost == {1: "ended without a word"}


def test_other_errors_are_left_alone() -> None:
    assert is_exchange(RuntimeError("[/x/gloo/transport/tcp/pair.cc:547] Connection closed"))
    assert not is_exchange(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_exchange(ValueError("gloo"))


def test_an_exchange_that_breaks_on_all_ranks_says_why(tmp_path: Path) -> None:
    ranks, _ = lose(tmp_path, None, "break")
    assert [rank[0] for rank in ranks] == [EXIT_LOST] * 3
    (said,) = last_words(ranks).values()
    assert said.startswith("sunpipe: an exchange between the ranks failed on all of them (")
    assert "Duplicate GPU detected : rank 1 and rank 0" in said
    assert said.endswith(LAST)
    assert "\n" not in said


def test_the_reason_of_an_error_is_one_line() -> None:
    assert reason(RuntimeError("[/x/gloo/pair.cc:547] Connection closed\nmore")) == (
        "Connection closed"
    )
    nccl = "NCCL error in: /x.cpp:1, invalid usage\nncclInvalidUsage: ...\nLast error:\nDuplicate"
    assert reason(RuntimeError(nccl)) == "Duplicate"
    assert reason(ValueError()) == "ValueError"


def test_callers_that_are_not_of_the_job_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_lines, "KNOCK_S", 0.3)
    token = rendezvous.job_token(ranks_of(0, 3, 1))
    found: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as door:
        taker = threading.Thread(
            target=lambda: found.append(accept(door, ranks_of(0, 3, 1), timeout_s=20))
        )
        taker.start()
        words = ["", "GET / HTTP/1.0", "1", "other-job 1", f"{token} 0", f"{token} 3", f"{token} x",
                 f"{token} 1", f"{token} 1", f"{token} 2"]  # fmt: skip
        calls = []
        for word in words:  # the first says nothing and stays
            calls.append(socket.create_connection(door.getsockname()))
            if word:
                calls[-1].sendall(f"{word}\nbeat\n".encode())
        calls.append(socket.create_connection(door.getsockname()))
        taker.join(10)
    (lines,) = found
    assert {rank: line.getpeername() for rank, line in lines.items()} == {
        1: calls[7].getsockname(), 2: calls[9].getsockname()
    }  # fmt: skip
    assert lines[1].recv(100) == b"beat\n"  # what follows the name is left to be read
    for line in (*calls, *lines.values()):
        line.close()


def test_ranks_that_do_not_call_are_named() -> None:
    said = r"ranks 1, 2 did not call within 0\.2 s"
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        pytest.raises(TimeoutError, match=said),
    ):
        accept(door, ranks_of(0, 3, 1), timeout_s=0.2)


def ranks_of(rank: int, world: int, port: int, host: str = "127.0.0.1") -> Ranks:
    return Ranks(rank, world, rank, host, port, "slurm")


def meet(ranks: Ranks, seconds: float, answers: list[Any]) -> threading.Thread:
    """`rendezvous.meet` in a thread: ranks of one process, each with its own store."""

    def work() -> None:
        try:
            answers.append(rendezvous.meet(ranks, seconds))
        except SunpipeError as error:
            answers.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def together(all_ranks: list[Ranks], seconds: float = 30) -> list[Any]:
    answers: list[list[Any]] = [[] for _ in all_ranks]
    for thread in [meet(r, seconds, a) for r, a in zip(all_ranks, answers, strict=True)]:
        thread.join(60)
    return [answer[0] for answer in answers]


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "SLURM_JOB_ID"):
        monkeypatch.delenv(key, raising=False)


def test_a_host_name_that_is_not_known() -> None:
    (said,) = together([ranks_of(1, 2, free_port(), "no-such-host.invalid")])
    assert said == ("rank 1 of 2: no machine is known by the name 'no-such-host.invalid', where"
                    " rank 0 should be; set MASTER_ADDR")  # fmt: skip


def test_ranks_that_do_not_come_are_named_on_all_others() -> None:
    port = free_port()
    said = together([ranks_of(r, 4, port) for r in (0, 2)], seconds=1.5)
    for rank, line in zip((0, 2), said, strict=True):
        assert line == (f"rank {rank} of 4 waited 2 s at 127.0.0.1 on port {port}, but ranks 1, 3"
                        " did not come; see why they did not start")  # fmt: skip


def test_rank_0_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MASTER_PORT", str(port))
    (said,) = together([ranks_of(1, 2, port)], seconds=1)
    assert said == (f"rank 1 of 2 did not find rank 0 at 127.0.0.1 on port {port} within 1 s: it"
                    " did not start, or a firewall is between them")  # fmt: skip


def has_ipv6() -> bool:
    """Whether ``::1`` is an address here; the kernel of a container may know IPv6 without."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6"))


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6])
def test_the_second_connection_is_found_at_either_kind_of_address(host: str) -> None:
    store = HashStore()
    lines: dict[int, Any] = {}

    def call(rank: int, at: str) -> None:
        lines[rank] = connect(ranks_of(rank, 3, 1, at), store, 20)

    threads = [threading.Thread(target=call, args=(rank, at))
               for rank, at in enumerate(["127.0.0.1", host, "127.0.0.1"])]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    lines[1][0].sendall(b"beat")
    assert lines[0][1].recv(4) == b"beat"
    assert {rank: sorted(others) for rank, others in lines.items()} == {0: [1, 2], 1: [0], 2: [0]}
    for others in lines.values():
        for line in others.values():
            line.close()


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6])
def test_rank_0_is_found_at_either_kind_of_address(host: str) -> None:
    port = free_port()
    stores = together([ranks_of(r, 2, port, host) for r in range(2)], seconds=10)
    stores[1].set("word", "heard")
    assert stores[0].get("word") == b"heard"


def test_a_derived_port_that_is_taken_is_left_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "KNOCK_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:  # takes calls, and says nothing
        port = taken.getsockname()[1]
        stores = together([ranks_of(r, 3, port) for r in range(3)])
    stores[1].set("word", "heard")
    assert [store.get("word") for store in stores] == [b"heard"] * 3
    assert rendezvous.ports(ranks_of(0, 3, port))[1] == job_port(f"{port}/1")


def test_a_given_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "KNOCK_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        said = together([ranks_of(r, 2, port) for r in range(2)], seconds=3)
    assert said[0].startswith(f"rank 0 of 2 cannot listen at 127.0.0.1 on port {port}: taken")
    assert f"(another program answers on {port})" in said[1]
