"""Files on tape: ordered from JSOC as an export, waited for, and brought like all others.

One order is open at a time, as JSOC asks. Its id is on disk
(``archive/exports/<digest>.json``) before it is waited for, so that a killed
fetch finds its order again instead of placing a second one.
"""

from __future__ import annotations

import fcntl
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from preprocess.acquire.jsoc import STORED_PATH, ask
from preprocess.archive import parse_record
from preprocess.manifest import Entry
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, write_json
from sunpipe.provenance import now
from sunpipe.query_settings import FetchSettings
from sunpipe.stage import log

FOLDER = "exports"
MAX_SET = 3500  # JSOC takes 4096 characters
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
REQUEST_ID = re.compile(r"JSOC_\d{8}_\d+(_[A-Z]+)*")
HASH_FAULT = "save new export-request hash"
REGISTER = "http://jsoc.stanford.edu/ajax/register_email.html"
_ROW = re.compile(r"(.+)\{([^{}]*)\}")


@dataclass(frozen=True)
class Order:
    """Segments that are ordered together."""

    entries: tuple[Entry, ...]

    @property
    def record_set(self) -> str:
        """As JSOC is asked for it."""
        segments: dict[str, list[str]] = {}
        for entry in self.entries:
            segments.setdefault(entry.record, []).append(entry.segment)
        return ",".join(f"{record}{{{','.join(names)}}}" for record, names in segments.items())

    def path(self, archive: Path) -> Path:
        """Where its id is kept."""
        return archive / FOLDER / f"{digest(self.record_set)[:16]}.json"

    def halves(self) -> tuple[Order, Order]:
        """Two orders of about half the records each."""
        records = list(dict.fromkeys(entry.record for entry in self.entries))
        first = set(records[: len(records) // 2])
        return (Order(tuple(e for e in self.entries if e.record in first)),
                Order(tuple(e for e in self.entries if e.record not in first)))  # fmt: skip


def make_orders(staged: Sequence[Entry], records: int) -> list[Order]:
    """Orders of one series each, of at most `records` records and `MAX_SET` letters."""
    by_record: dict[str, list[Entry]] = {}
    for entry in sorted(staged, key=lambda e: (parse_record(e.record).series, e.key)):
        by_record.setdefault(entry.record, []).append(entry)
    orders: list[Order] = []
    held: list[list[Entry]] = []
    for group in by_record.values():
        trial = Order(tuple(e for one in [*held, group] for e in one))
        series = {parse_record(e.record).series for e in trial.entries}
        if held and (len(held) == records or len(trial.record_set) > MAX_SET or len(series) > 1):
            orders.append(Order(tuple(e for one in held for e in one)))
            held = []
        held.append(group)
    if held:
        orders.append(Order(tuple(e for one in held for e in one)))
    return orders


@contextmanager
def _only_one(archive: Path) -> Iterator[bool]:
    (archive / FOLDER).mkdir(parents=True, exist_ok=True)
    with open(archive / FOLDER / ".lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


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
        self._deadline = time.monotonic() + settings.export_wait_s

    def _pause(self, turn: int) -> bool:
        """Wait before asking again; False when the time is over."""
        longest = max(SLOWEST_POLL_S, self.settings.export_poll_s)
        wait = min(longest, self.settings.export_poll_s * 1.5**turn) * random.uniform(0.8, 1.0)
        if time.monotonic() + wait > self._deadline:
            return False
        time.sleep(wait)
        return True

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
            if not again or not self._pause(turn):
                return answer
            turn += 1

    def _remember(self, order: Order, identity: str) -> None:
        if not REQUEST_ID.fullmatch(identity):
            raise DataError(f"JSOC gave the request the id {identity!r}")
        write_json(order.path(self.archive),
                   {"id": identity, "record_set": order.record_set, "time": now()})  # fmt: skip

    def wait(self, order: Order) -> Any:
        """The last answer to an order that was placed now or by an earlier run."""
        path = order.path(self.archive)
        answer = None
        if path.is_file():
            answer = self._poll(str(read_json(path)["id"]))
            if answer.status == DELETED:
                log("an export was deleted before it was fetched; ordering it again")
                answer = None
        if answer is None:
            answer = self._place(order)
            if answer.id and answer.status in (READY, *PENDING):
                self._remember(order, answer.id)
        unknown = turn = 0
        while answer.status in PENDING or answer.status == UNKNOWN:
            unknown += answer.status == UNKNOWN
            if unknown > UNKNOWN_POLLS:
                path.unlink(missing_ok=True)
                raise DataError("JSOC does not know the export it accepted; run the same command"
                                " again")  # fmt: skip
            if not self._pause(turn):
                return answer
            turn += 1
            answer = self._poll(str(read_json(path)["id"]))
        return answer


def delivered(order: Order, answer: Any, url: str) -> list[Entry]:
    """Entries of an order that is ready: with their address, or missing.

    The rows are matched by name: records without image are left out of exports,
    and some rows are messages.
    """
    places: dict[tuple[str, str], str] = {}
    folder = answer.dir or ""
    for record, name in answer.data.itertuples(index=False):
        if match := _ROW.fullmatch(str(record)):
            where = str(name) if str(name).startswith("/") else f"{folder}/{name}"
            places[match[1], match[2]] = where
    found = []
    for entry in order.entries:
        where = places.get(entry.key, "")
        if not where or where.endswith("/NoDataFile"):
            reason = f"not in the export {answer.id or ''}".rstrip()
            found.append(replace(entry, state="missing", reason=reason, final=True))
        elif not STORED_PATH.fullmatch(where):
            reason = f"JSOC names the path {where!r}"
            found.append(replace(entry, state="failed", reason=reason, final=True))
        else:
            found.append(replace(entry, state="wanted", reason="", url=urljoin(url, where)))
    return found


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
    final = answer.status in (TOO_LARGE, REFUSED) and HASH_FAULT not in words
    return [replace(entry, state="failed", reason=words, final=final) for entry in order.entries]


def bring_staged(
    staged: Sequence[Entry],
    desk: Desk,
    record: Callable[[Entry], None],
    bring: Callable[[Sequence[Entry]], None],
) -> None:
    """Order what is on tape and bring it, one order after the other.

    Parameters
    ----------
    record : callable
        Called with each entry that is not brought.
    bring : callable
        Brings entries from their address.
    """
    with _only_one(desk.archive) as mine:
        if not mine:
            log(f"{len(staged)} segments on tape are left to another process that orders them")
            return
        orders = make_orders(staged, desk.settings.export_records)
        orders.sort(key=lambda order: not order.path(desk.archive).is_file())  # open ones first
        while orders:
            order = orders.pop(0)
            answer = desk.wait(order)
            if answer.status == READY:
                entries = delivered(order, answer, desk.settings.url)
                bring([entry for entry in entries if entry.state == "wanted"])
                for entry in entries:
                    if entry.state != "wanted":
                        record(entry)
                order.path(desk.archive).unlink(missing_ok=True)
                continue
            if answer.status in (*PENDING, UNKNOWN, BUSY):  # drms would wait for its words
                log(f"the export {answer.id or ''} is not ready; run the same command again later")
                return
            refused = outcome(order, answer)
            if refused is None:
                orders[:0] = order.halves()
                continue
            for entry in refused:
                record(entry)
            order.path(desk.archive).unlink(missing_ok=True)
