"""One HTTP transfer at a time: retries with back-off, and nothing unchecked is stored."""

from __future__ import annotations

import http.client
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import sunpipe
from sunpipe.fits import MAX_BYTES, read_segment
from sunpipe.fitsfile import FitsError

T = TypeVar("T")
USER_AGENT = f"sunpipe/{sunpipe.__version__} (solar data pipeline; one connection at a time)"
BLOCK = 1 << 16
MAX_WAIT_S = 240.0
TRANSIENT_CODES = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransferError(Exception):
    """A transfer that failed.

    Attributes
    ----------
    transient : bool
        Whether trying again can help.
    unreachable : bool
        Whether the server did not answer at all.
    wait_s : float
        How long the server asked to wait.
    """

    def __init__(
        self, message: str, transient: bool = True, unreachable: bool = False, wait_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.transient = transient
        self.unreachable = unreachable
        self.wait_s = wait_s


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to another host."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            raise TransferError(f"{req.full_url} redirects to another host", transient=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def explain(error: Exception) -> TransferError:
    """Sort an error of the network into transient or final."""
    if isinstance(error, TransferError):
        return error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        asked = error.headers.get("Retry-After", "") if error.headers else ""
        return TransferError(f"HTTP {error.code}", error.code in TRANSIENT_CODES,
                             wait_s=float(asked) if asked.isdigit() else 0.0)  # fmt: skip
    if isinstance(error, urllib.error.URLError):
        return TransferError(f"{error.reason}", unreachable=True)
    if isinstance(error, TimeoutError):
        return TransferError("no answer in time", unreachable=True)
    if isinstance(error, ConnectionError | http.client.HTTPException):
        return TransferError(f"the connection broke ({error})")
    raise error


def with_retries(work: Callable[[], T], retries: int, wait_s: float) -> T:
    """Run `work`; on a transient error wait and try again.

    Waits `wait_s` times 1, 2, 4 ... with jitter of half to the full length, at
    least what the server asks for, at most four minutes.

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
            pause = wait_s * 2**attempt * random.uniform(0.5, 1.0)
            time.sleep(min(MAX_WAIT_S, max(pause, failure.wait_s)))
    raise AssertionError("unreachable")


def download_once(url: str, path: Path, timeout_s: float) -> None:
    """Bring `url` to `path` and check length and content.

    Raises
    ------
    TransferError
        For a body that is shorter or longer than announced, too large, too
        slow (ten times `timeout_s` in all), or not a readable FITS image.
    OSError
        Of the network.
    """
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    opener = urllib.request.build_opener(_SameHost)
    deadline = time.monotonic() + 10 * timeout_s
    with opener.open(request, timeout=timeout_s) as answer, open(path, "wb") as out:
        announced = answer.headers.get("Content-Length", "")
        received = 0
        while block := answer.read1(BLOCK):
            received += len(block)
            if received > MAX_BYTES:
                raise TransferError(f"more than {MAX_BYTES} bytes", transient=False)
            if time.monotonic() > deadline:
                raise TransferError(f"slower than {10 * timeout_s:g} s for one file")
            out.write(block)
    if announced.isdigit() and received != int(announced):
        raise TransferError(f"{received} bytes arrived of {announced} announced")
    try:
        read_segment(path)
    except FitsError as error:
        raise TransferError(f"what arrived cannot be used: {error.reason}") from None
