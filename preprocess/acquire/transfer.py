"""One HTTP transfer into a partial file; nothing in it is trusted yet."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import httpx

import sunpipe
from preprocess.acquire.partial import Partial
from preprocess.acquire.retry import TransferError, http_error, pause_s, say_wait
from sunpipe.fits import MAX_BYTES
from sunpipe.query_settings import FetchSettings

USER_AGENT = f"sunpipe/{sunpipe.__version__} (solar data pipeline; few connections at a time)"
FITS_BEGINS = b"SIMPLE  ="
MAX_REDIRECTS = 3
SETTLED = timedelta(seconds=60)
REDIRECTS = (301, 302, 303, 307, 308)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class Gate:
    """One pause for all transfers, when the server says that it is busy."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._until = 0.0
        self._turn = 0
        self.strikes = 0

    async def passed(self) -> int:
        """Wait until nobody is asked to wait any more; returns the number of the turn."""
        while (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left)
        return self._turn

    def pause(self, failure: TransferError, turn: int) -> None:
        """The server is busy: the longer, the more often it has said so in a row.

        What several transfers of one turn are told counts once.
        """
        wait = pause_s(self.strikes, self._wait_s, failure.wait_s)
        if turn == self._turn:
            self._turn += 1
            self.strikes += 1
            say_wait(failure, wait)
        self._until = max(self._until, time.monotonic() + wait)

    def calm(self) -> None:
        """The server answered."""
        self.strikes = 0


def make_http(settings: FetchSettings) -> httpx.AsyncClient:
    """A client with at most `settings.connections` connections."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # drms turns everybody's messages on
    limits = httpx.Limits(
        max_connections=settings.connections, max_keepalive_connections=settings.connections
    )
    # identity: a coding in between would make lengths and ranges those of something else
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    return httpx.AsyncClient(headers=headers, limits=limits, timeout=settings.timeout_s)


def _range_headers(partial: Partial, url: str) -> dict[str, str]:
    """Headers that ask for the rest; none, and an empty file, where there is nothing to resume.

    Without a validator nobody can tell whether the rest is of the same file.
    """
    note = partial.note
    whole = partial.size() == note.get("total")
    if note.get("url") != url or not partial.size() or not (note.get("validator") or whole):
        partial.restart()
        return {}
    return {"Range": f"bytes={partial.size()}-", "If-Range": str(note["validator"])}


def _date(answer: httpx.Response, name: str) -> datetime | None:
    try:
        return parsedate_to_datetime(answer.headers.get(name, "")).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _validator(answer: httpx.Response) -> str:
    """What identifies the bytes of an answer for If-Range; empty when nothing does.

    A strong ETag, or a time of change that lies `SETTLED` before the answer:
    a younger one does not exclude another change in the same second (RFC 9110,
    sections 8.8.2.2 and 13.1.5).
    """
    if tag := answer.headers.get("ETag", ""):
        return "" if tag.startswith("W/") else str(tag)
    changed, now = _date(answer, "Last-Modified"), _date(answer, "Date")
    if changed is None or now is None or now - changed < SETTLED:
        return ""
    return str(answer.headers["Last-Modified"])


def _same(answer: httpx.Response, validator: str) -> bool:
    """Whether a part that arrives is of the file noted, for servers that pass over If-Range."""
    stated = answer.headers.get("ETag" if validator.startswith('"') else "Last-Modified")
    return stated is None or stated == validator


def _length(answer: httpx.Response) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else None


def _begin(answer: httpx.Response, partial: Partial, url: str) -> int | None:
    """Judge the head of an answer; returns the length of the whole file if it is known.

    Raises
    ------
    TransferError
        For an answer that is not the file, or not the part of it that was asked for.
    """
    if answer.status_code == 416:
        partial.restart()
        raise TransferError("the server cannot resume what it began")
    if answer.status_code not in (200, 206):
        raise http_error(answer.status_code, answer.headers.get("Retry-After"))
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise TransferError("an HTML page arrived instead of a file", refused=True)
    if answer.status_code == 206:
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        place = (partial.size(), partial.note.get("total"))
        if (
            match is None
            or (int(match[1]), int(match[3])) != place
            or not _same(answer, str(partial.note.get("validator")))
        ):
            partial.restart()
            raise TransferError("the server resumed another file or at another place")
        return int(match[3])
    total = _length(answer)
    if total is not None and total > MAX_BYTES:
        raise TransferError(f"{total} bytes announced; at most {MAX_BYTES}", transient=False)
    if total is None:  # cannot be resumed
        partial.restart()
    else:
        partial.restart(url=url, total=total, validator=_validator(answer))
    return total


async def _receive(
    answer: httpx.Response, partial: Partial, url: str, add_bytes: Callable[[int], None]
) -> None:
    total = _begin(answer, partial, url)
    received = partial.size()
    head = b"" if not received else FITS_BEGINS
    async for block in answer.aiter_raw():
        received += len(block)
        if received > MAX_BYTES:
            raise TransferError(f"more than {MAX_BYTES} bytes", transient=False)
        if len(head) < len(FITS_BEGINS):
            head = (head + block)[: len(FITS_BEGINS)]
            if not FITS_BEGINS.startswith(head):
                raise TransferError(
                    f"what arrived is no FITS file, it begins with {head!r}", refused=True
                )
        partial.write(block)
        add_bytes(len(block))
    if total is not None and partial.size() != total:
        raise TransferError(f"{partial.size()} bytes arrived of {total} announced")


def redirected(url: str, here: str, location: str) -> str:
    """Where a redirect leads: on the same host, or to its encrypted side.

    Raises
    ------
    TransferError
        For any other place, and for what is no address.
    """
    try:
        there = urljoin(here, location)
        old, new = urlsplit(url), urlsplit(there)
        same = new[:2] == old[:2]
        upgrade = (
            (old.scheme, new.scheme) == ("http", "https")
            and new.hostname == old.hostname
            and new.port in (None, 443, old.port)
            and not new.username
        )
    except ValueError:
        raise TransferError(f"{url} redirects to {location!r}", transient=False) from None
    if not (same or upgrade):
        raise TransferError(f"{url} redirects to another host", transient=False)
    return there


async def transfer(
    http: httpx.AsyncClient,
    url: str,
    partial: Partial,
    timeout_s: float,
    add_bytes: Callable[[int], None],
) -> bool:
    """Bring what is lacking of `url` into `partial`.

    Returns
    -------
    bool
        Whether all bytes came in this one transfer.

    Raises
    ------
    TransferError
        For a body that is shorter than announced, too large, too slow (ten
        times `timeout_s` in all), HTML, or on another host. What came so far is
        kept where the server can resume.
    """
    headers = _range_headers(partial, url)
    if headers and partial.size() == partial.note.get("total"):
        return False  # it came whole, but its process died
    answered = False
    here = url
    try:
        async with asyncio.timeout(10 * timeout_s):
            for _ in range(MAX_REDIRECTS + 1):
                async with http.stream("GET", here, headers=headers) as answer:
                    answered = True
                    if answer.status_code not in REDIRECTS:
                        resumed = answer.status_code == 206
                        await _receive(answer, partial, url, add_bytes)
                        return not resumed
                    here = redirected(url, here, answer.headers.get("Location", ""))
            raise TransferError(f"{url} redirects in circles", transient=False)
    except TimeoutError:
        raise TransferError(f"slower than {10 * timeout_s:g} s for one file") from None
    except httpx.TimeoutException:
        raise TransferError("no answer in time", unreachable=not answered) from None
    except httpx.ConnectError as error:
        raise TransferError(f"{error}", unreachable=True) from None
    except httpx.TransportError as error:
        raise TransferError(f"the connection broke ({error})") from None
    except (httpx.InvalidURL, ValueError) as error:  # httpx reads headers that are none
        raise TransferError(f"its answer is not HTTP ({error})", refused=True) from None
    finally:
        partial.size()  # flushes: what came is there for whoever continues
