"""When a failed call of the archive is tried again, and after how long."""

from __future__ import annotations

import http.client
import random
import re
import time
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from sunpipe.stage import log

T = TypeVar("T")
MAX_WAIT_S = 240.0
MAX_ASKED_S = 3600.0  # of what a server asks for
SAID_FROM_S = 5.0  # shorter waits are not worth a line
TRANSIENT_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})
BUSY_CODES = frozenset({429, 503})
GONE_CODES = frozenset({404, 410})
GONE = tuple(f"HTTP {code}" for code in sorted(GONE_CODES))  # the reasons of such files
FOREIGN = "not an address of the archive"
PASSING_CODES = frozenset({401, 403, 407})  # the server's mood: no use now, perhaps tomorrow
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


class TransferError(Exception):
    """A transfer that failed.

    Attributes
    ----------
    transient : bool
        Whether trying again can help.
    unreachable : bool
        Whether the server did not answer at all.
    busy : bool
        Whether the server asked everybody to wait.
    wait_s : float
        How long it asked to wait.
    refused : bool
        Whether the server answered, and not with the file: a whole archive that is
        down does so for every file.
    final : bool
        Whether only ``--retry-failed`` tries again; by default what is not transient.
    """

    def __init__(
        self,
        message: str,
        transient: bool = True,
        unreachable: bool = False,
        wait_s: float = 0.0,
        busy: bool = False,
        refused: bool = False,
        final: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.unreachable = unreachable
        self.wait_s = wait_s
        self.busy = busy
        self.refused = refused
        self.final = not transient if final is None else final


def retry_after_s(text: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 for anything else."""
    text = (text or "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
        return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def http_error(code: int, retry_after: str | None) -> TransferError:
    """The failure that a status code means."""
    return TransferError(
        f"HTTP {code}",
        code in TRANSIENT_CODES,
        wait_s=retry_after_s(retry_after),
        busy=code in BUSY_CODES,
        refused=code not in GONE_CODES,
        final=code not in TRANSIENT_CODES | PASSING_CODES,
    )


def pause_s(attempt: int, wait_s: float, asked_s: float = 0.0) -> float:
    """Wait after the failure number `attempt` (from 0).

    `wait_s` times 1, 2, 4 ... with jitter of half to the full length, at most
    four minutes; or what the server asks for when that is longer, at most an hour.
    """
    backoff = wait_s * 2.0 ** min(attempt, 16) * random.uniform(0.5, 1.0)
    return max(min(MAX_WAIT_S, backoff), min(MAX_ASKED_S, asked_s))


def say_wait(failure: TransferError, wait_s: float) -> None:
    """A line about a wait that a user would notice."""
    if wait_s < SAID_FROM_S:
        return
    asked = ""
    if failure.wait_s:
        asked = f", as it asks for {failure.wait_s:.0f} s"
        asked += f" (never more than {MAX_ASKED_S:.0f})" if failure.wait_s > MAX_ASKED_S else ""
    log(f"JSOC: {failure}; trying again in {wait_s:.0f} s{asked}")


def explain(error: Exception) -> TransferError:
    """Sort an error of urllib, which drms uses, into transient or final."""
    if isinstance(error, TransferError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return http_error(error.code, error.headers.get("Retry-After") if error.headers else None)
    if isinstance(error, urllib.error.URLError):
        return TransferError(f"{error.reason}", unreachable=True)
    if isinstance(error, TimeoutError):
        return TransferError("no answer in time", unreachable=True)
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return TransferError(f"the connection broke ({error})")
    raise error


def with_retries(work: Callable[[], T], retries: int, wait_s: float) -> T:
    """Run `work`; on a transient error wait (see `pause_s`) and try again.

    Raises
    ------
    TransferError
        The last one.
    """
    for attempt in range(retries + 1):
        try:
            return work()
        except (OSError, http.client.HTTPException, TransferError) as error:
            failure = explain(error)
            if not failure.transient or attempt == retries:
                raise failure from None
            wait = pause_s(attempt, wait_s, failure.wait_s)
            say_wait(failure, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")
