"""Ranks that die or hang: the others end soon, with one line that names them.

Beside the process group every rank holds a connection to rank 0 open, and a
thread of its own minds it. The kernel closes the connection of a killed process
at once; a stopped one falls silent. So a lost peer is known whatever the
training is doing, also where NCCL would wait for its timeout and then abort.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sunpipe import checkpoint
from sunpipe.dist import Ranks
from sunpipe.errors import EXIT_FAILURE, EXIT_LOST, RankLost, Stopped, SunpipeError
from sunpipe.train.exchanges import is_exchange, reason
from sunpipe.train.hang import (
    ANSWER_S,
    LEAVE_S,
    LOOK_S,
    PAUSE_S,
    WRITE_S,
    HangWatch,
    complain,
    said_within,
)
from sunpipe.train.peer_lines import Wires, connect
from sunpipe.train.process_group import shared_store
from sunpipe.train.rendezvous import KNOCK_S, names

BEAT_S = 0.5  # between signs of life
GATHER_S = 2.0  # after an exchange broke: for the news of who is lost to arrive
GRACE_S = 20.0  # for a rank to leave by itself once a peer is lost


class Peers:
    """The other ranks, as this one sees them.

    Attributes
    ----------
    checkpoints : Path or None
        Where the run keeps its checkpoints; the newest is named when a peer is lost.
    lost : dict
        Rank to what became of it.
    codes : dict
        Rank to its exit code, of those that failed by an error of their own.
    waited : dict
        Rank to what its exchange said when it failed, as rank 0 hears it.
    watch : HangWatch or None
        Looks at the clocks of all ranks, while the training goes on.
    fail : callable
        Told what ended the training, on rank 0.
    """

    def __init__(self, ranks: Ranks, timeout_s: float) -> None:
        self.ranks, self.timeout_s = ranks, timeout_s
        self.checkpoints: Path | None = None
        self.lost: dict[int, str] = {}
        self.codes: dict[int, int] = {}
        self.waited: dict[int, str] = {}
        self.watch: HangWatch | None = None
        self.fail: Callable[[str], None] = lambda _: None
        self.spoken = False  # rank 0 names the lost ones; the others need not
        self._left: set[int] = set()
        self._leaving = False
        self._wires = Wires(connect(ranks, shared_store(), timeout_s))
        self._heard = dict.fromkeys(self._wires.lines, time.monotonic())
        self._faults: set[str] = set()
        self._thread = threading.Thread(target=self._mind, name="peers", daemon=True)
        self._thread.start()

    def tell(self, words: str) -> None:
        """Send one line to rank 0, or from rank 0 to all."""
        for peer in self._wires.lines:
            self._wires.tell(peer, words)

    def leave(self, words: str = "bye") -> None:
        """Say why this rank goes, and stop minding the others."""
        if not self._leaving:
            self.tell(words)
            self._leaving = True
            self._thread.join(KNOCK_S)
            self._wires.close()

    def _mind(self) -> None:
        beaten, looked, known, broke, last = 0.0, 0.0, 0.0, 0.0, time.monotonic()
        with selectors.DefaultSelector() as readable:
            for peer, line in self._wires.lines.items():
                readable.register(line, selectors.EVENT_READ, peer)
            while not self._leaving:
                for key, _ in readable.select(BEAT_S / 2):
                    if not self._read(key.data):
                        readable.unregister(key.fileobj)
                now, watch = time.monotonic(), self.watch
                if now - last > PAUSE_S:  # this process was stopped: nobody else was silent
                    self._heard = {peer: at + now - last for peer, at in self._heard.items()}
                    if watch is not None:
                        watch.forgive(now - last)
                last = now
                if now - beaten > BEAT_S:
                    self.tell("beat" if watch is None else f"beat {watch.beat()}")
                    beaten = now
                broke = broke or (now if self.waited else 0.0)
                self._note_silence(now)
                if watch is not None and now - looked > LOOK_S and not self._leaving:
                    if self.lost:  # enough is known; who waits for that rank does not hang
                        watch.put_off(now)
                    else:
                        late = broke and now - broke > GATHER_S
                        watch.look(now, lambda: self.tell("stacks"), self._left | set(self.waited),
                                   self._broken() if late else "")  # fmt: skip
                    looked = now
                ends = self.lost or self.spoken or (self.ranks.is_main and self.waited)
                known = known or (now if ends else 0.0)
                if known and now - known > GRACE_S and not self._leaving:
                    # the training waits inside an exchange that cannot end
                    self._say_and_exit()

    def _read(self, peer: int) -> bool:
        lines = self._wires.heard(peer)
        if lines is None:
            if peer not in self._left:
                self._lose(peer, "ended without a word")
            return False
        self._heard[peer] = time.monotonic()
        for line in lines:
            try:
                self._hear(peer, line)
            except Exception as error:
                complain(self._faults, error)
        return True

    def _hear(self, peer: int, words: str) -> None:
        verb, _, rest = words.partition(" ")
        if verb in ("beat", "stacks", "answer", "hung"):
            self._hear_of_hangs(peer, verb, rest)
        elif verb == "bye":
            self._left.add(peer)
        elif verb == "waited":
            self.waited[peer] = rest
            if self.ranks.is_main:  # rank 0 has more to say
                self._left.add(peer)
        elif verb == "spoken":
            self.spoken = True
        elif verb == "failed":
            code, _, why = rest.partition(" ")
            self._left.add(peer)
            self._lose(peer, f"failed ({why})", int(code))
        elif verb == "lost":
            who, code, why = rest.split(" ", 2)
            self.codes.setdefault(int(who), int(code))
            self.lost.setdefault(int(who), why)

    def _hear_of_hangs(self, peer: int, verb: str, rest: str) -> None:
        if verb == "hung":  # rank 0 has said who, and where
            try:
                if self.watch is not None:  # the disk may be what hangs
                    closing = threading.Thread(target=self.watch.dump.close, daemon=True)
                    closing.start()
                    closing.join(LEAVE_S)
            finally:
                os._exit(EXIT_LOST)
        if self.watch is None:
            return
        if verb == "beat" and rest:
            self.watch.hear(peer, rest)
        elif verb == "stacks":
            self._wires.tell(peer, f"answer {self.watch.answer()}")
        elif verb == "answer":
            self.watch.hear_answer(peer, rest)

    def hung(self, code: int) -> None:
        """End all ranks that can hear it, then this one."""
        self.tell("hung")
        time.sleep(LEAVE_S)
        os._exit(code)

    def _note_silence(self, now: float) -> None:
        for peer, heard in self._heard.items():
            if now - heard > self.timeout_s and peer not in self._left:
                self._lose(peer, f"has not answered for {self.timeout_s:g} s")

    def _lose(self, peer: int, why: str, code: int = EXIT_LOST) -> None:
        if peer not in self.lost:
            self.codes[peer] = code  # first: who finds the peer lost asks for its code
            self.lost[peer] = why
            if self.ranks.is_main:
                self.tell(f"lost {peer} {code} {why}")

    def exit_code(self) -> int:
        """`EXIT_LOST`, or that of a rank whose own error, a full disk say, ended them all."""
        codes = {self.codes[peer] for peer in self.lost}
        return EXIT_LOST if not codes or EXIT_LOST in codes else min(codes)

    def line(self, why: str = "") -> str:
        """Who is lost, and what to do.

        Parameters
        ----------
        why : str
            What the exchange said that broke here; told where it is all that is known.
        """
        ranks, lost = self.ranks, dict(self.lost)
        if lost:
            kinds = sorted(set(lost.values()))
            who = "; ".join(
                f"{names(sorted(r for r in lost if lost[r] == why))} {why}" for why in kinds
            )
            if 0 in lost and not ranks.is_main:
                who += f" (seen by rank {ranks.rank})"
        else:
            late = sorted(set(range(ranks.world)) - self.waited.keys()) if ranks.is_main else [0]
            who = "an exchange between the ranks failed on all of them"
            if late:
                who = f"{names(late)} did not come to an exchange"
            theirs = next((said for _, said in sorted(self.waited.items()) if said != why), "")
            said = " and ".join(filter(None, (why, theirs)))
            who += f" ({said})" if said else ""
        last = checkpoint.complete(self.checkpoints) if self.checkpoints else []
        kept = f"; the last checkpoint is {last[-1].name}" if last else ""
        return f"{who}{kept}; run the same command again to continue"

    def _waits_no_more(self, error: BaseException) -> str:
        why = reason(error)
        if self.ranks.is_main:
            self.waited[0] = why
        self.tell(f"waited {why}")
        return why

    def _broken(self) -> str:
        rank, why = next(iter(self.waited.items()))
        return f"an exchange failed on {names([rank])} ({why})"

    def settle(self, error: BaseException, watch: HangWatch) -> None:
        """After an exchange broke here: wait until who is late is known; this may end the process.

        Rank 0's watch asks those that did not come for their stacks, and ends all ranks.
        """
        self._waits_no_more(error)
        ranks = self.ranks
        self._await(
            lambda: bool(self.lost) or self.spoken or watch.over.is_set()
            or (ranks.is_main and self.waited.keys() | self._left >= set(range(ranks.world))),
            GATHER_S + 2 * ANSWER_S + (0 if ranks.is_main else WRITE_S),
        )  # fmt: skip

    def verdict(self, error: BaseException) -> SunpipeError | SystemExit:
        """After an exchange broke here: the one line, or a quiet exit if rank 0 has it.

        `RankLost`, unless a rank failed by an error of its own: then with its exit code.
        """
        why = self._waits_no_more(error)
        self._await(lambda: bool(self.lost) and not self.ranks.is_main, GATHER_S)
        if self.ranks.is_main:
            found = self._fault(why)
            self.fail(str(found))
            self.tell("spoken")
            return found
        if 0 not in self.lost:
            self._await(lambda: self.spoken or 0 in self.lost, 2 * GATHER_S)
        return SystemExit(self.exit_code()) if self.spoken else self._fault(why)

    def _fault(self, why: str) -> SunpipeError:
        if self.exit_code() == EXIT_LOST:
            return RankLost(self.line(why))
        fault = SunpipeError(self.line(why))
        fault.exit_code = self.exit_code()
        return fault

    def _await(self, ready: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not ready() and time.monotonic() < end:
            time.sleep(0.02)

    def _say_and_exit(self) -> None:
        speaks = self.ranks.is_main or (0 in self.lost and not self.spoken)
        said = threading.Event()

        def say() -> None:
            line = self.line()
            if said_within(f"sunpipe: {line}", WRITE_S / 2):
                said.set()
                self.tell("spoken")
            if self.ranks.is_main:
                self.fail(line)

        try:
            if speaks:  # the disk, or stderr, may be what hangs: this process must not
                saying = threading.Thread(target=say, daemon=True)
                saying.start()
                saying.join(WRITE_S)
                if not said.is_set():
                    self.checkpoints = None
                    said_within(f"sunpipe: {self.line()}", WRITE_S)
        finally:
            os._exit(self.exit_code())


@contextmanager
def naming_lost_peers(ranks: Ranks, timeout_s: float = 600.0) -> Iterator[Peers | None]:
    """Around a training: an exchange that breaks becomes one line that names the lost ranks.

    Rank 0 says it; the others end without a word, unless rank 0 is the lost one.
    Other exceptions pass, and are made known to the peers.

    Parameters
    ----------
    timeout_s : float
        A rank that gives no sign of life for so long counts as lost.

    Yields
    ------
    Peers or None
        Set its `checkpoints` to have the newest one named. None if alone.
    """
    if ranks.world == 1:
        yield None
        return
    peers = Peers(ranks, timeout_s)
    try:
        yield peers
    except (Stopped, SystemExit, KeyboardInterrupt):
        peers.leave()
        raise
    except Exception as error:
        if not is_exchange(error):
            peers.leave(f"failed {getattr(error, 'exit_code', EXIT_FAILURE)} {reason(error)}")
            raise
        found = peers.verdict(error)
        peers.leave()
        raise found from None
    peers.leave()
