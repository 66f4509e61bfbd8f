"""JSOC's answer, from real HTTP servers: up, down, slow, refusing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hpc.doctor import jsoc
from hpc.doctor.finding import Finding
from hpc.doctor.place import Place
from sunpipe.config import load_config
from tests.conftest import free_port


@contextmanager
def server(status: int, wait_s: float = 0.0) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.command, self.headers["User-Agent"]))
            time.sleep(wait_s)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/", asked
        http.shutdown()


def place(url: str) -> Place:
    return Place("login", {}, Path("/"), load_config(None, [f"fetch.url={url}"]), None)


def look(url: str) -> Finding:
    """As the doctor's own process looks."""
    return jsoc.judge(place(url), jsoc.head(url, jsoc.TIMEOUT_S))


def test_it_answers_and_was_asked_as_the_acquisition_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsoc, "TIMEOUT_S", 60.0)  # a process of its own, on a busy machine
    with server(200) as (url, asked):
        found = jsoc.jsoc(place(url))
    assert found.level == "OK"
    assert len(asked) == 1
    assert asked[0][1].startswith("sunpipe/")


def test_a_server_that_fails_or_is_down_is_a_warning() -> None:
    with server(503) as (url, _):
        found = look(url)
    assert (found.level, "HTTP 503" in found.seen) == ("WARN", True)
    found = look(f"http://127.0.0.1:{free_port()}/")
    assert found.level == "WARN"
    assert "fetch where the internet is reached" in found.fix


@pytest.mark.parametrize("status", [403, 404, 407, 429])
def test_an_answer_of_which_a_fetch_would_fail_is_a_warning(status: int) -> None:
    with server(status) as (url, _):
        found = look(url)
    assert (found.level, f"HTTP {status}" in found.seen) == ("WARN", True)
    assert ("proxy" in found.seen) == (status in (403, 407))


def test_a_server_that_refuses_head_is_there() -> None:
    with server(405) as (url, _):
        assert look(url).level == "OK"


def test_what_is_wrong_here_is_not_blamed_on_the_name_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = look("http://a:b/")
    assert (found.level, "InvalidURL" in found.seen) == ("WARN", True)
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1:9")
    monkeypatch.setattr(jsoc, "START_S", 30.0)
    found = jsoc.jsoc(place("http://127.0.0.1:9/"))
    assert (found.level, "gopher" in found.seen) == ("WARN", True)
    assert "no answer" not in found.seen


def test_a_slow_server_does_not_hold_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsoc, "TIMEOUT_S", 0.4)
    started = time.monotonic()
    with server(200, wait_s=60.0) as (url, _):
        found = look(url)
    assert time.monotonic() - started < 30
    assert found.level == "WARN"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        found = look(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert found.level == "WARN"
    assert "no answer within 0.4 s" in found.seen or "Timeout" in found.seen


def test_a_look_up_of_its_name_that_hangs_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A node without a name server: the C library tries for half a minute."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(jsoc, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(jsoc, "START_S", 30.0)  # here; its process waits as long as ever
    found = jsoc.jsoc(place("http://jsoc.example/"))
    assert (found.level, "not even of the look-up of its name" in found.seen) == ("WARN", True)
