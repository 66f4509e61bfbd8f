"""JSOC answers, asked as the acquisition asks."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from http import HTTPStatus

from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from hpc.status.text import plain

TIMEOUT_S = 5.0


def jsoc(place: Place) -> Finding:
    """HEAD of the archive's address; a compute node often has no way out, and needs none.

    A server that only refuses to be asked by HEAD is there (405).
    """
    import httpx

    from preprocess.acquire.transfer import make_http

    settings = dataclasses.replace(place.config.fetch, timeout_s=TIMEOUT_S)

    async def head() -> int:
        async with make_http(settings) as http:
            answer = await asyncio.wait_for(http.head(settings.url), TIMEOUT_S)
            return answer.status_code

    started = time.monotonic()
    try:
        status = asyncio.run(head())
    except TimeoutError:
        fault = f"no answer within {TIMEOUT_S:g} s"
    except (httpx.HTTPError, OSError) as error:
        fault = plain(str(error) or type(error).__name__, 120)
    else:
        if status < HTTPStatus.BAD_REQUEST or status == HTTPStatus.METHOD_NOT_ALLOWED:
            took = time.monotonic() - started
            return Finding("jsoc", "OK", f"{settings.url} answers in {took * 1000:.0f} ms")
        proxy = status in (HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
        fault = f"HTTP {status}" + (", as a proxy answers that lets nothing out" if proxy else "")
    only = " from this node" if place.where == "allocation" else ""
    return Finding("jsoc", "WARN", f"{settings.url} is not reached{only}: {fault}",
                   "fetch where the internet is reached (a login or transfer node), or work with"
                   " the bundled sample: sunpipe fetch --source sample")  # fmt: skip
