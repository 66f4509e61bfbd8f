"""When a failed call of the archive is tried again, and after how long."""

from __future__ import annotations

import http.client
import random
import time
import urllib.error
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

T = TypeVar("T")
MAX_WAIT_S = 240.0
TRANSIENT_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})
BUSY_CODES = frozenset({429, 503})


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
    """

    def __init__(
        self,
        message: str,
        transient: bool = True,
        unreachable: bool = False,
        wait_s: float = 0.0,
        busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.unreachable = unreachable
        self.wait_s = wait_s
        self.busy = busy


def retry_after_s(text: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 for anything else."""
    text = (text or "").strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def http_error(code: int, retry_after: str | None) -> TransferError:
    """The failure that a status code means."""
    return TransferError(f"HTTP {code}", code in TRANSIENT_CODES,
                         wait_s=retry_after_s(retry_after), busy=code in BUSY_CODES)  # fmt: skip


def pause_s(attempt: int, wait_s: float, asked_s: float = 0.0) -> float:
    """Wait after the failure number `attempt` (from 0).

    `wait_s` times 1, 2, 4 ... with jitter of half to the full length, at least
    what the server asks for, at most four minutes.
    """
    backoff = wait_s * 2.0 ** min(attempt, 16) * random.uniform(0.5, 1.0)
    return min(MAX_WAIT_S, max(backoff, asked_s))


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
            time.sleep(pause_s(attempt, wait_s, failure.wait_s))
    raise AssertionError("unreachable")
