"""Bring many files: a few transfers at a time, each file checked before it gets its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from preprocess.acquire.decoder import Decoders, Verdict
from preprocess.acquire.journal import stamp
from preprocess.acquire.jsoc import STORED_PATH
from preprocess.acquire.partial import Partial, lease
from preprocess.acquire.progress import Progress
from preprocess.acquire.retry import FOREIGN, GONE, TransferError, pause_s
from preprocess.acquire.transfer import Gate, make_http, transfer
from preprocess.archive import KEYWORDS, relative_path
from preprocess.manifest import Entry
from sunpipe.query_settings import FetchSettings
from sunpipe.stage import log

GIVE_UP_AFTER = 3  # files in a row that the server does not answer, or busy answers beyond retries
REFUSED_AFTER = 10  # files in a row that it refuses alike
TRIED_ONCE_AFTER = 2  # refused alike, before others are refused without trying again
BUSY_WAIT_S = 0.5  # until a file that another process brings is looked at again


class Unreachable(Exception):
    """The server has fallen silent or refuses everything; what is left stays wanted.

    Attributes
    ----------
    refused : bool
        Whether it answers.
    """

    def __init__(self, message: str, failure: TransferError) -> None:
        super().__init__(message)
        self.refused = failure.refused


def of_archive(url: str, archive_url: str) -> bool:
    """Whether an address is a stored file of the archive: the books are no authority."""
    root = archive_url.rstrip("/")
    return url.startswith(f"{root}/") and bool(STORED_PATH.fullmatch(url[len(root) :]))


def _fetched(entry: Entry, verdict: Verdict) -> Entry:
    return replace(entry, state="fetched", reason="", sha256=verdict.sha256, bytes=verdict.bytes,
                   time=stamp(), final=False)  # fmt: skip


def _not_fetched(entry: Entry, state: str, reason: str, final: bool) -> Entry:
    return replace(entry, state=state, reason=reason, sha256="", bytes=0, time=stamp(), final=final)


class Session:
    """What the transfers of one run share.

    Parameters
    ----------
    record : callable
        Called with the entry of each file that is finished with.
    known : callable
        Gives the entry that another process made of the same file meanwhile.
    """

    def __init__(
        self,
        archive: Path,
        settings: FetchSettings,
        record: Callable[[Entry], None],
        progress: Progress,
        known: Callable[[Entry], Entry | None] = lambda _: None,
    ) -> None:
        self.archive = archive
        self.settings = settings
        self.record = record
        self.known = known
        self.progress = progress
        self.gate = Gate(settings.retry_wait_s)
        self.decoders = Decoders(settings.decoders)
        self.http: httpx.AsyncClient = make_http(settings)
        self._connections = asyncio.Semaphore(settings.connections)
        self._streak = ("", 0)

    async def run(self, entries: Iterable[Entry]) -> None:
        """Bring all files.

        Raises
        ------
        Unreachable
            When `GIVE_UP_AFTER` files in a row found no server, `REFUSED_AFTER` were
        refused for one reason, or the server says again and again that it is busy.
        """
        queue = iter(entries)
        busy: list[Entry] = []

        async def work() -> None:
            for entry in queue:
                if not await self._one(entry):
                    busy.append(entry)

        async with self.decoders, self.http:
            # more workers than connections: files are checked while others arrive
            workers = self.settings.connections + self.settings.decoders
            await _all(work() for _ in range(workers))
            longest = 10 * self.settings.timeout_s  # one transfer may last so long
            end = time.monotonic() + longest
            while busy and time.monotonic() < end:
                self.progress.waiting(len(busy))
                before = len(busy)
                queue, busy = iter(busy), []
                await asyncio.sleep(BUSY_WAIT_S)
                await _all(work() for _ in range(workers))
                if len(busy) < before:
                    end = time.monotonic() + longest
            if busy:
                log(f"{len(busy)} files are held by another process that does not get on; they stay"
                    " wanted, run the same command again")  # fmt: skip

    async def _one(self, entry: Entry) -> bool:
        """Bring one file; False when another process is at it."""
        with lease(self.archive, entry.record, entry.segment) as partial:
            if partial is None:
                return False
            done, failure = await self._bring(entry, partial)
            self.record(done)
        self.progress.finish(done.state)
        self._count(failure)
        return True

    def _count(self, failure: TransferError | None) -> None:
        """End the run when the server does to one file after the other the same."""
        if failure is None or not (failure.unreachable or failure.refused):
            self._streak = ("", 0)
            return
        what = "no answer" if failure.unreachable else str(failure)
        count = self._streak[1] + 1 if self._streak[0] == what else 1
        self._streak = (what, count)
        if count >= (GIVE_UP_AFTER if failure.unreachable else REFUSED_AFTER):
            raise Unreachable(f"{failure}, {count} files in a row", failure)

    async def _adopt(self, entry: Entry, target: Path) -> Entry | None:
        """What lies under the name of a file already, if it is the one that is wanted.

        Another process may have brought it meanwhile, whose books then name its
        digest. Or it was brought by one that could not write it down, or whose
        books are lost: then its checksums must be right, and it must not be
        older than the keywords of the record, which are written anew when the
        record is made again. Anything else stays until what arrives replaces it.
        """
        if not target.is_file():
            return None
        verdict = await self.decoders.check(target)
        if verdict.fault:
            return None
        known = self.known(entry)
        if known is not None and known.state == "fetched" and known.sha256 == verdict.sha256:
            return known
        if entry.state == "fetched" or not verdict.verified:
            return None
        keywords = self.archive / relative_path(entry.record, KEYWORDS)
        if not keywords.is_file() or target.stat().st_mtime < keywords.stat().st_mtime:
            return None
        return _fetched(entry, verdict)

    async def _bring(self, entry: Entry, partial: Partial) -> tuple[Entry, TransferError | None]:
        """The entry as it is afterwards, and the failure that ended it."""
        target = self.archive / entry.path
        if adopted := await self._adopt(entry, target):
            return adopted, None
        if not of_archive(entry.url, self.settings.url):
            return _not_fetched(entry, "missing", FOREIGN, True), None
        seen: set[str] = set()
        attempt = 0
        while True:
            try:
                whole = await self._transfer(entry.url, partial)
                verdict = await self.decoders.check(partial.path)
                if not verdict.fault:
                    partial.publish(target)
                    return _fetched(entry, verdict), None
                partial.restart()
                identity = verdict.sha256 or verdict.fault
                if whole and identity in seen:
                    reason = f"{verdict.fault}, twice with the same bytes"
                    return _not_fetched(entry, "quarantined", reason, True), None
                seen |= {identity} if whole else set()
                failure = TransferError(verdict.fault)
            except TransferError as error:
                failure = error
            if failure.busy:  # not this file's fault: it costs none of its attempts
                if self.gate.strikes > self.settings.retries + GIVE_UP_AFTER:
                    raise Unreachable(f"{failure}, {self.gate.strikes} times in a row", failure)
                continue
            if not failure.transient or attempt == self.settings.retries or self._known(failure):
                break
            wait = pause_s(attempt, self.settings.retry_wait_s, failure.wait_s)
            attempt += 1
            await asyncio.sleep(wait)
        state = "missing" if str(failure) in GONE else "failed"
        return _not_fetched(entry, state, str(failure), failure.final), failure

    def _known(self, failure: TransferError) -> bool:
        """Whether the files before were refused alike."""
        what, count = self._streak
        return failure.refused and what == str(failure) and count >= TRIED_ONCE_AFTER

    async def _transfer(self, url: str, partial: Partial) -> bool:
        async with self._connections:
            turn = await self.gate.passed()
            timeout = self.settings.timeout_s
            try:
                whole = await transfer(self.http, url, partial, timeout, self.progress.add_bytes)
            except TransferError as failure:
                if failure.busy:
                    self.gate.pause(failure, turn)
                raise
        self.gate.calm()
        return whole


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; the first exception ends them all and is raised as it is."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():  # a second time would end its cleaning up
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def bring(
    archive: Path,
    entries: Iterable[Entry],
    settings: FetchSettings,
    record: Callable[[Entry], None],
    progress: Progress,
    known: Callable[[Entry], Entry | None] = lambda _: None,
) -> None:
    """Bring files into the archive; see `Session`."""

    async def work() -> None:
        await Session(archive, settings, record, progress, known).run(entries)

    asyncio.run(work())
