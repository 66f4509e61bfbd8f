"""Orders of files on tape: what is asked for together, what came of it, what is still open.

An order that JSOC accepted is kept in ``archive/exports/<digest>.json`` with its id
and its record set until nothing of it is left to bring, so that a run that was
killed at any moment finds it again instead of placing a second one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from preprocess.acquire.jsoc import STORED_PATH
from preprocess.archive import parse_record
from preprocess.manifest import Entry
from sunpipe.errors import DataError
from sunpipe.files import digest, read_json, write_json
from sunpipe.provenance import now

FOLDER = "exports"
MAX_SET = 3500  # JSOC takes 4096 characters
REQUEST_ID = re.compile(r"JSOC_\d{8}_\d+(_[A-Z]+)*")
KEPT_S = 8 * 86400.0  # JSOC keeps exports for a week
LEFT_OUT = "not in the export"
_ROW = re.compile(r"(.+)\{([^{}]*)\}")
_PART = re.compile(r"([^{},]+)\{([^{}]+)\}(?:,|$)")
Key = tuple[str, str]


@dataclass(frozen=True)
class Order:
    """Segments that are ordered together.

    Attributes
    ----------
    entries : tuple of Entry
        What is to come of it.
    id : str
        Of an order that an earlier run placed.
    stem : str
        Name of the file it is kept in; made of the record set when empty.
    """

    entries: tuple[Entry, ...]
    id: str = ""
    stem: str = ""

    @property
    def record_set(self) -> str:
        """As JSOC is asked for it."""
        segments: dict[str, list[str]] = {}
        for entry in self.entries:
            segments.setdefault(entry.record, []).append(entry.segment)
        return ",".join(f"{record}{{{','.join(names)}}}" for record, names in segments.items())

    def path(self, archive: Path) -> Path:
        """Where its id is kept."""
        return archive / FOLDER / f"{self.stem or digest(self.record_set)[:16]}.json"

    def keep(self, archive: Path, identity: str) -> Order:
        """The order with the id it got, once that is on disk."""
        if not REQUEST_ID.fullmatch(identity):
            raise DataError(f"JSOC gave the request the id {identity!r}")
        path = self.path(archive)
        write_json(path, {"id": identity, "record_set": self.record_set, "time": now()})
        return Order(self.entries, identity, path.stem)

    def forget(self, archive: Path) -> Order:
        """The order as if it had never been placed."""
        self.path(archive).unlink(missing_ok=True)
        return Order(self.entries)

    def halves(self) -> tuple[Order, Order]:
        """Two orders of about half the records each."""
        records = list(dict.fromkeys(entry.record for entry in self.entries))
        first = set(records[: len(records) // 2])
        return (Order(tuple(e for e in self.entries if e.record in first)),
                Order(tuple(e for e in self.entries if e.record not in first)))  # fmt: skip


def make_orders(staged: Collection[Entry], records: int) -> list[Order]:
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


def _kept(path: Path) -> tuple[str, list[Key]]:
    """Id and segments of an order on disk."""
    try:
        content = read_json(path)
        identity, text = str(content["id"]), str(content["record_set"])
        parts = _PART.findall(text)
        for record, _ in parts:
            parse_record(record)
    except (DataError, KeyError, TypeError):
        identity, text, parts = "", "", []
    keys = [(record, segment) for record, names in parts for segment in names.split(",")]
    whole = ",".join(f"{record}{{{names}}}" for record, names in parts)
    if not REQUEST_ID.fullmatch(identity) or not keys or whole != text:
        raise DataError(f"{path} is not an order; remove it and run sunpipe fetch again")
    return identity, keys


def open_orders(archive: Path, staged: Mapping[Key, Entry]) -> Iterator[Order]:
    """Orders that an earlier run placed, the oldest first, with what is still staged of them.

    Those of which nothing is asked for here are another run's; they are removed
    when JSOC must have deleted them. What an order is known to lack is not
    expected of it again.
    """
    taken: set[Key] = set()
    for path in sorted((archive / FOLDER).glob("*.json"), key=lambda p: p.stat().st_mtime_ns):
        identity, keys = _kept(path)
        entries = [
            staged[key]
            for key in keys
            if key in staged and key not in taken and staged[key].reason != left_out(identity)
        ]
        taken |= {entry.key for entry in entries}
        if entries:
            yield Order(tuple(entries), identity, path.stem)
        elif time.time() - path.stat().st_mtime > KEPT_S:
            path.unlink()


def left_out(identity: str) -> str:
    """Reason of a segment that an export does not have."""
    return f"{LEFT_OUT} {identity}".rstrip()


def omitted(entry: Entry, identity: str) -> Entry:
    """A segment that an export does not have: ordered once more, then missing.

    A query calls records without image missing, so that what was staged should exist.
    """
    again = not entry.reason.startswith(LEFT_OUT)
    return replace(entry, state="staged" if again else "missing", reason=left_out(identity),
                   url="", final=not again)  # fmt: skip


def orderable(entry: Entry) -> bool:
    """Whether an order can help an entry that has failed: it has no address of its own."""
    if entry.url:
        return False
    return entry.state in ("failed", "quarantined") or entry.reason.startswith(LEFT_OUT)


def as_staged(entry: Entry) -> Entry:
    """The entry as if it had never been ordered."""
    return replace(entry, state="staged", reason="on tape", url="", final=False)


def delivered(order: Order, answer: Any, url: str) -> list[Entry]:
    """Entries of an order that is ready: wanted from their address, or left out, or failed.

    The rows are matched by name: JSOC leaves records without image out of
    exports, some rows are messages, and a file may be called by a number.
    """
    places: dict[Key, str] = {}
    folder = answer.dir or ""
    for record, name in answer.data.itertuples(index=False):
        if match := _ROW.fullmatch(str(record)):
            where = str(name) if str(name).startswith("/") else f"{folder}/{name}"
            places[match[1], match[2]] = where
    found = []
    for entry in order.entries:
        where = places.get(entry.key, "")
        if not where or where.endswith("/NoDataFile"):
            found.append(omitted(entry, answer.id or ""))
        elif not STORED_PATH.fullmatch(where):
            reason = f"JSOC names the path {where!r}"
            found.append(replace(entry, state="failed", reason=reason, final=True))
        else:
            found.append(replace(entry, state="wanted", url=urljoin(url, where)))
    return found


def still(entries: Sequence[Entry], staged: Collection[Key]) -> list[Entry]:
    """Entries that are among `staged`."""
    return [entry for entry in entries if entry.key in staged]
