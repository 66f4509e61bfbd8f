"""Questions to Prometheus over its HTTP interface, with one clear line when it does not answer.

Source: Prometheus 2.x documentation, "HTTP API": query, query_range, label values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from sunpipe.errors import SunpipeError

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Series:
    """Labels of a series and its (unix time in s, value) samples, oldest first."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Prometheus:
    """A Prometheus server.

    Parameters
    ----------
    url : str
        Its address, for example ``http://127.0.0.1:9090``; user and password may stand in it.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise SunpipeError(f"{url!r} is no address of a Prometheus, such as http://HOST:9090")
        self.url = url.rstrip("/")
        local = httpx.URL(self.url).host in ("127.0.0.1", "::1", "localhost")
        self._client = httpx.Client(
            timeout=PATIENCE_S, follow_redirects=True,
            trust_env=not local,  # a site's proxy does not reach this machine's own addresses
        )  # fmt: skip

    def __enter__(self) -> Prometheus:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def shown(self) -> str:
        """The address without user and password."""
        return str(httpx.URL(self.url).copy_with(userinfo=b""))

    def _ask(self, path: str, fields: Mapping[str, Any], method: str = "POST") -> Any:
        """``data`` of an answer; a query is sent as a form, so that long expressions fit."""
        sent = {"data" if method == "POST" else "params": dict(fields)}
        try:
            answer = self._client.request(method, f"{self.url}/api/v1/{path}", **sent)  # type: ignore[arg-type]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SunpipeError(
                f"Prometheus at {self.shown} does not answer ({error or type(error).__name__}); "
                "start it (make monitor), or give its address with --prometheus"
            ) from None
        try:
            value = answer.json()
        except ValueError:
            value = None
        if not isinstance(value, dict) or "status" not in value:
            raise SunpipeError(
                f"{self.shown} answers, but not as a Prometheus (HTTP {answer.status_code})"
            )
        if value["status"] != "success":
            raise SunpipeError(
                f"Prometheus at {self.shown} refused {dict(fields)}: {value.get('error')}"
            )
        return value["data"]

    def newest(self, expr: str, at: float) -> list[Series]:
        """Values of `expr` at the time `at`."""
        found = self._ask("query", {"query": expr, "time": at})
        if found["resultType"] == "scalar":
            return [Series({}, (_sample(found["result"]),))]
        return [Series(each["metric"], (_sample(each["value"]),)) for each in found["result"]]

    def over(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Values of `expr` every `step` seconds."""
        fields = {"query": expr, "start": start, "end": end, "step": step}
        found = self._ask("query_range", fields)["result"]
        return [Series(each["metric"], tuple(_sample(pair) for pair in each["values"]))
                for each in found]  # fmt: skip

    def names(self, start: float, end: float) -> set[str]:
        """Names of all metrics with a sample between `start` and `end`."""
        return set(self._values("__name__", {"start": start, "end": end}))

    def label_values(self, metric: str, label: str, start: float, end: float) -> list[str]:
        """Values that `label` had in series of `metric` (a name with an optional selector)."""
        return self._values(label, {"match[]": metric, "start": start, "end": end})

    def _values(self, label: str, fields: Mapping[str, Any]) -> list[str]:
        return [str(value) for value in self._ask(f"label/{label}/values", fields, "GET")]


def _sample(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
