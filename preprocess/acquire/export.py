"""Files on tape: ordered from JSOC as an export, waited for, and brought like all others.

One order is open at a time, as JSOC asks, and one process of an archive orders at
a time; others wait for it. See `preprocess.acquire.orders` for what is kept on disk.
"""

from __future__ import annotations

import fcntl
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from preprocess.acquire.jsoc import ask
from preprocess.acquire.orders import (
    FOLDER,
    LEFT_OUT,
    Key,
    Order,
    delivered,
    make_orders,
    omitted,
    open_orders,
    still,
)
from preprocess.manifest import Entry, read_manifest
from sunpipe.errors import DataError
from sunpipe.lock import lock_file
from sunpipe.query_settings import FetchSettings
from sunpipe.stage import log

SLOWEST_POLL_S = 120.0
UNKNOWN_POLLS = 10  # a new id is unknown for some seconds
READY, PENDING, TOO_LARGE, REFUSED, DELETED, UNKNOWN, BUSY, OFFLINE = (
    0,
    (1, 2, 12),
    3,
    4,
    5,
    6,
    7,
    25,
)
STATUS_WORDS = {1: "being processed", 2: "queued", 6: "not known yet", 12: "queued"}
HASH_FAULT = "save new export-request hash"
EMPTY_SET = "no files in this"
GONE = ("HTTP 404", "HTTP 410")
REGISTER = "http://jsoc.stanford.edu/ajax/register_email.html"


def _words(answer: Any) -> str:
    """What JSOC says of a request that failed."""
    from drms import DrmsExportError

    try:
        answer.data  # noqa: B018, the only public way to the message
    except DrmsExportError as error:
        return str(error)
    return f"status {answer.status}"


class Desk:
    """Places orders and waits for them until `settings.export_wait_s` are over."""

    def __init__(self, archive: Path, client: Any, settings: FetchSettings, email: str) -> None:
        self.archive = archive
        self.client = client
        self.settings = settings
        self.email = email
        self._started = time.monotonic()

    def pause(self, turn: int, what: str) -> bool:
        """Say what is waited for and wait before asking again; False when the time is over."""
        longest = max(SLOWEST_POLL_S, self.settings.export_poll_s)
        wait = min(longest, self.settings.export_poll_s * 1.5**turn) * random.uniform(0.8, 1.0)
        waited = time.monotonic() - self._started
        if waited + wait > self.settings.export_wait_s:
            return False
        log(f"{what}; waited {waited:.0f} s of {self.settings.export_wait_s:.0f} s,"
            f" asking again in {wait:.0f} s")  # fmt: skip
        time.sleep(wait)
        return True

    @contextmanager
    def alone(self) -> Iterator[tuple[bool, bool]]:
        """The right to order; yields whether it was given, and whether it was waited for."""
        (self.archive / FOLDER).mkdir(parents=True, exist_ok=True)
        turn, mine = 0, False
        with open(self.archive / FOLDER / ".lock", "w") as handle:
            while not mine:
                try:
                    lock_file(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    mine = True
                except BlockingIOError:
                    if not self.pause(turn, "another process orders files on tape"):
                        break
                    turn += 1
            yield mine, turn > 0 or not mine

    def _poll(self, identity: str) -> Any:
        return ask(lambda: self.client.export_from_id(identity), self.settings, identity)

    def _place(self, order: Order) -> Any:
        """Send an order; while another one is open, wait for that."""
        turn = 0
        while True:
            answer = ask(
                lambda: self.client.export(
                    order.record_set, method="url", protocol="as-is", email=self.email
                ),
                self.settings,
                order.record_set,
            )
            again = answer.status == BUSY or (
                answer.status == REFUSED and HASH_FAULT in _words(answer)
            )
            if not again or not self.pause(turn, f"JSOC takes no export now ({_words(answer)})"):
                return answer
            turn += 1

    def wait(self, order: Order) -> tuple[Order, Any]:
        """The order, with its id if it has one, and the last answer to it."""
        answer = None
        if order.id:
            answer = self._poll(order.id)
            if answer.status == DELETED:
                log(f"the export {order.id} was deleted before all of it was fetched; ordering"
                    " what is left again")  # fmt: skip
                order, answer = order.forget(self.archive), None
        if answer is None:
            answer = self._place(order)
            if answer.id and answer.status in (READY, *PENDING):
                order = order.keep(self.archive, answer.id)
                log(f"ordered {len(order.entries)} segments on tape: export {order.id}")
        unknown = turn = 0
        while answer.status in PENDING or answer.status == UNKNOWN:
            unknown += answer.status == UNKNOWN
            if unknown > UNKNOWN_POLLS:
                order.forget(self.archive)
                raise DataError("JSOC does not know the export it accepted; run the same command"
                                " again")  # fmt: skip
            if not self.pause(turn, f"export {order.id} is {STATUS_WORDS[answer.status]}"):
                break
            turn += 1
            answer = self._poll(order.id)
        return order, answer


def outcome(order: Order, answer: Any) -> list[Entry] | None:
    """Entries of an order that JSOC did not carry out; None when it is to be divided."""
    if answer.status == TOO_LARGE and len({entry.record for entry in order.entries}) > 1:
        return None
    words = _words(answer)
    if answer.status == REFUSED and re.search(r"registered|e-?mail", words, re.IGNORECASE):
        raise DataError(f"JSOC refuses the export ({words}); register the address of fetch.email at"
                        f" {REGISTER}")  # fmt: skip
    if answer.status == OFFLINE:
        return [replace(entry, state="staged", reason=words) for entry in order.entries]
    if answer.status == REFUSED and EMPTY_SET in words:
        again = [entry for entry in order.entries if entry.reason.startswith(LEFT_OUT)]
        if len(again) == len(order.entries):  # no export has them
            return [replace(entry, state="missing", final=True) for entry in again]
    final = answer.status in (TOO_LARGE, REFUSED) and HASH_FAULT not in words
    return [replace(entry, state="failed", reason=words, final=final) for entry in order.entries]


class _Round:
    """One pass over all that is staged."""

    def __init__(
        self,
        staged: dict[Key, Entry],
        desk: Desk,
        record: Callable[[Entry], None],
        bring: Callable[[Sequence[Entry], Callable[[Entry], None]], None],
    ) -> None:
        self.left = staged
        self.desk = desk
        self._record = record
        self._bring = bring
        self._open = Order(())

    def finish(self, entry: Entry) -> None:
        """Enter what became of a segment; the address of an export is good for days only."""
        if entry.state == "missing" and entry.reason in GONE:
            entry = omitted(self.left[entry.key], self._open.id)
        elif entry.state == "failed" and not entry.final:
            entry = replace(entry, state="staged")
        if entry.state != "fetched":
            entry = replace(entry, url="")
        if entry.state == "staged":
            self.left[entry.key] = entry
        else:
            del self.left[entry.key]
        self._record(entry)

    def _receive(self, order: Order, answer: Any) -> list[Entry]:
        """Bring what an export has; returns what it should have had."""
        entries = delivered(order, answer, self.desk.settings.url)
        self._bring([entry for entry in entries if entry.state == "wanted"], self.finish)
        for entry in entries:
            if entry.state != "wanted":
                self.finish(entry)
        lacking = [self.left[entry.key] for entry in still(order.entries, self.left)]
        again = [entry for entry in lacking if entry.reason.startswith(LEFT_OUT)]
        if len(again) == len(lacking):
            order.forget(self.desk.archive)
        else:
            log(f"{len(lacking) - len(again)} files of the export {order.id} did not arrive; the"
                " next run brings them from there")  # fmt: skip
        return again

    def run(self) -> None:
        """Resume open orders, then order the rest."""
        most, archive = self.desk.settings.export_records, self.desk.archive
        orders = list(open_orders(archive, self.left))
        known = {entry.key for order in orders for entry in order.entries}
        orders += make_orders([e for key, e in self.left.items() if key not in known], most)
        while orders:
            order, answer = self.desk.wait(orders.pop(0))
            self._open = order
            if answer.status == READY:
                orders += make_orders(self._receive(order, answer), most)
                continue
            if answer.status in (*PENDING, UNKNOWN, BUSY):  # drms would wait for its words
                log(f"the export {order.id} is not ready, {len(self.left)} segments stay on tape;"
                    " run the same command again later")  # fmt: skip
                return
            refused = outcome(order, answer)
            if refused is None:
                orders[:0] = order.forget(archive).halves()
                continue
            for entry in refused:
                self.finish(entry)
            order.forget(archive)


def bring_staged(
    staged: Sequence[Entry],
    desk: Desk,
    record: Callable[[Entry], None],
    bring: Callable[[Sequence[Entry], Callable[[Entry], None]], None],
    note: Callable[[Entry], None],
) -> None:
    """Order what is on tape and bring it, one order after the other.

    Parameters
    ----------
    record : callable
        Called with each entry whose fate this run has decided.
    bring : callable
        Brings entries from their address and tells the fate of each.
    note : callable
        Called with each entry whose fate another process has decided meanwhile.
    """
    left = {entry.key: entry for entry in staged}
    with desk.alone() as (mine, waited):
        if waited:
            held = read_manifest(desk.archive)
            for key, before in list(left.items()):
                now = held.get(key, before)
                if now.state != "staged" and now.time != before.time:
                    note(now)
                    del left[key]
        if mine:
            _Round(left, desk, record, bring).run()
        elif left:
            log(f"another process still orders; {len(left)} segments of this one stay on tape,"
                " run the same command again later")  # fmt: skip
