"""What answers at the address of a Prometheus may be something else."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from hpc.monitor import preview_source
from hpc.monitor.preview import preview
from hpc.monitor.preview_source import Client
from sunpipe.errors import DataError

VECTOR = '{"status": "success", "data": {"resultType": "vector", "result": [%s]}}'


@pytest.mark.parametrize("answer", [
    '{"status": "success", "data": null}', '{"status": "success"}', "[" * 100_000, "<html>", "3",
    '{"status": "success", "data": [1, {"a": 2}]}', '{"status": "success", "data": "x"}',
    '{"status": "success", "data": {"a": "b"}}', VECTOR % '{"metric": {}, "value": ["x", "y"]}',
    VECTOR % '{"metric": [1], "value": [1, "2"], "values": [[1]]}',
])  # fmt: skip
def test_an_answer_that_is_no_prometheus_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    def told(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=answer)

    real = httpx.Client
    monkeypatch.setattr(preview_source.httpx, "Client",
                        lambda **given: real(transport=httpx.MockTransport(told)))  # fmt: skip
    page = tmp_path / "page.html"
    with pytest.raises(DataError, match=r"http://h:9090 answers.*, but not as a Prometheus"):
        preview("http://h:9090", page)
    assert not page.exists()
    with Client("http://h:9090") as source:
        for ask in (lambda: source.newest("up"), lambda: source.over("up", 0, 1, 1)):
            with pytest.raises(DataError, match="but not as a Prometheus"):
                ask()
