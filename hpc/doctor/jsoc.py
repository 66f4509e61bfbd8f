"""JSOC answers, asked as the acquisition asks: ``python -m hpc.doctor.jsoc URL SECONDS``.

A process of its own: where no name server answers, the system's look-up of a name takes
half a minute, and only the end of a process ends it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from http import HTTPStatus

from hpc.doctor.ask import ask
from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from hpc.status.text import plain

TIMEOUT_S = 5.0
START_S = 4.0  # to make a client on a busy node; twice that for imports from a slow disk


def head(url: str, timeout_s: float) -> str:
    """``ok SECONDS`` or ``status NUMBER`` of HEAD; ``fault WORDS`` if there is no answer."""
    import httpx

    from preprocess.acquire.transfer import make_http
    from sunpipe.query_settings import FetchSettings

    async def asked() -> int:
        async with make_http(FetchSettings(url=url, timeout_s=timeout_s)) as http:
            answer = await asyncio.wait_for(http.head(url), timeout_s)
            return answer.status_code

    started = time.monotonic()
    try:
        status = asyncio.run(asked())
    except TimeoutError:
        return f"fault no answer within {timeout_s:g} s"
    except (httpx.HTTPError, OSError) as error:
        return f"fault {plain(str(error) or type(error).__name__, 120)}"
    except Exception as error:  # of a proxy's address, for example: no answer would not be true
        return f"fault {type(error).__name__}: {plain(error, 140)}"
    # a server that only refuses to be asked by HEAD is there
    if status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"ok {time.monotonic() - started:.3f}"
    return f"status {status}"


def jsoc(place: Place) -> Finding:
    """HEAD of the archive's address; a compute node often has no way out, and needs none."""
    answer = ask(
        [sys.executable, "-m", "hpc.doctor.jsoc", place.config.fetch.url, str(TIMEOUT_S)],
        TIMEOUT_S + 3 * START_S,
    )
    lines = answer.out.splitlines()
    return judge(place, lines[-1] if lines else f"fault {answer.words}")


def judge(place: Place, told: str) -> Finding:
    """The finding from what `head` told."""
    url, (kind, _, words) = place.config.fetch.url, told.partition(" ")
    if kind == "ok":
        return Finding("jsoc", "OK", f"{url} answers in {float(words) * 1000:.0f} ms")
    fault = plain(words, 160)
    if kind == "status":
        proxy = int(words) in (HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
        fault = f"HTTP {words}" + (", as a proxy answers that lets nothing out" if proxy else "")
    only = " from this node" if place.where == "allocation" else ""
    return Finding("jsoc", "WARN", f"{url} is not reached{only}: {fault}",
                   "fetch where the internet is reached (a login or transfer node), or work with"
                   " the bundled sample: sunpipe fetch --source sample")  # fmt: skip


def main() -> None:
    """Print what `head` tells; end without waiting for a look-up that hangs."""
    # before the clock of the look-up runs: a slow disk is no dead name server
    import preprocess.acquire.transfer  # noqa: F401  # httpx with it

    url, timeout_s = sys.argv[1], float(sys.argv[2])
    told: list[str] = []
    thread = threading.Thread(target=lambda: told.append(head(url, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s + START_S)
    late = f"fault no answer within {timeout_s:g} s, not even of the look-up of its name"
    print(told[0] if told else late, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
