"""Questions to Prometheus over its HTTP interface, with one clear line when it does not answer.

Source: Prometheus 2.x documentation, "HTTP API": query, query_range, label values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from sunpipe.errors import DataError, SunpipeError

PATIENCE_S = 30.0
READY_S = 2.0
FORMS = ("query", "query_range")  # sent as forms, so that long expressions fit


@dataclass(frozen=True)
class Series:
    """Labels of a series and its (unix time in s, value) samples, oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Client:
    """Asks a Prometheus server.

    Parameters
    ----------
    url : str
        Its address, for example ``http://127.0.0.1:9090``; user and password may stand in it.
    advice : str
        What to do when it does not answer.

    Raises
    ------
    SunpipeError
        If `url` is no address.
    """

    def __init__(self, url: str, advice: str = "") -> None:
        self.url = url.rstrip("/")
        self._advice = f"; {advice}" if advice else ""
        parsed = _parsed(self.url)
        self.shown = str(parsed.copy_with(userinfo=b""))  # without user and password
        local = parsed.host in ("127.0.0.1", "::1", "localhost")
        self._client = httpx.Client(
            timeout=PATIENCE_S, follow_redirects=True,
            trust_env=not local,  # a site's proxy does not reach this machine's own addresses
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get(f"{self.url}/-/ready", timeout=READY_S).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, fields: Mapping[str, Any]) -> Any:
        """``data`` of its answer to ``/api/v1/<path>``.

        Raises
        ------
        DataError
            It does not answer, or refuses; its own words are in the message.
        """
        url = f"{self.url}/api/v1/{path}"
        try:
            if path in FORMS:
                answer = self._client.post(url, data=dict(fields))
            else:
                answer = self._client.get(url, params=dict(fields))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DataError(
                f"Prometheus at {self.shown} does not answer "
                f"({error or type(error).__name__}){self._advice}"
            ) from None
        try:
            value = answer.json()
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and value.get("status") == "error":
            raise DataError(
                f"Prometheus refuses {dict(fields) or path} ({self.shown}): {value.get('error')}"
            )
        if not isinstance(value, dict) or "data" not in value:
            raise DataError(
                f"{self.shown} answers, but not as a Prometheus (HTTP {answer.status_code})"
            )
        return value["data"]

    @contextmanager
    def _read(self, path: str) -> Iterator[None]:
        """Read an answer; one in another form than Prometheus' is told in a line."""
        try:
            yield
        except (TypeError, ValueError, LookupError, AttributeError):
            raise DataError(
                f"{self.shown} answers to {path}, but not as a Prometheus; is it one?"
            ) from None

    def newest(self, expr: str, at: float | None = None) -> list[Series]:
        """Values of `expr` at the time `at`, or now."""
        fields = {"query": expr} if at is None else {"query": expr, "time": at}
        found = self.ask("query", fields)
        with self._read("query"):
            if found["resultType"] == "scalar":
                return [Series({}, (_sample(found["result"]),))]
            return [Series(_labels(each), (_sample(each["value"]),)) for each in found["result"]]

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Values of `expr` every `step` seconds."""
        fields = {"query": expr, "start": start, "end": end, "step": step}
        found = self.ask("query_range", fields)
        with self._read("query_range"):
            return [Series(_labels(each), tuple(_sample(pair) for pair in each["values"]))
                    for each in found["result"]]  # fmt: skip

    def names(self, start: float, end: float) -> set[str]:
        """Names of all metrics with a sample between `start` and `end`."""
        return set(self._values("__name__", {"start": start, "end": end}))

    def label_values(self, metric: str, label: str, start: float, end: float) -> list[str]:
        """Values that `label` had in series of `metric` (a name with an optional selector)."""
        return self._values(label, {"match[]": metric, "start": start, "end": end})

    def _values(self, label: str, fields: Mapping[str, Any]) -> list[str]:
        path = f"label/{label}/values"
        found = self.ask(path, fields)
        with self._read(path):
            if not isinstance(found, list):
                raise TypeError("no list")
            return [str(value) for value in found]


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    sound = parsed.scheme in ("http", "https") and parsed.host and (parsed.port or 1) < 65536
    if not sound:
        shown = re.sub(r"//[^/@]*@", "//", url)  # without user and password
        raise SunpipeError(f"{shown!r} is no address of a Prometheus, such as http://HOST:9090")
    return parsed


def _labels(series: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in series["metric"].items()}


def _sample(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
