"""Files that moved, servers that refuse, odd headers: what a fetch makes of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from preprocess.acquire.again import MAX_SET, sets_by_name
from preprocess.acquire.journal import open_journal, stamp
from preprocess.acquire.partial import lease
from preprocess.acquire.retry import (
    MAX_ASKED_S,
    TransferError,
    pause_s,
    retry_after_s,
    say_wait,
)
from preprocess.acquire.transfer import redirected
from preprocess.fetch import fetch as fetch_stage
from preprocess.manifest import Entry, read_manifest
from preprocess.query import query as query_stage
from sunpipe.config import validate
from sunpipe.errors import DataError
from tests.jsoc_archive import SHARP, tiny_archive
from tests.jsoc_export import EMAIL
from tests.jsoc_server import JsocServer

pytestmark = pytest.mark.usefixtures("root")
Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def jsoc() -> Iterator[JsocServer]:
    with JsocServer(tiny_archive(20, ("Br", "Bt"))) as server:
        yield server


def config(server: JsocServer, **changes: Any) -> Any:
    values = {"source": "jsoc", "url": server.url, "retry_wait_s": 0.001, "timeout_s": 5.0,
              "export_poll_s": 0.02, **changes}  # fmt: skip
    request = {"record_set": f"{SHARP}[1]", "segments": ["Br", "Bt"]}
    return validate({"name": "t", "fetch": values, "query": {"requests": [request]}})


def states(root: Path) -> dict[tuple[str, str], Entry]:
    return {k: e for k, e in read_manifest(root / "archive").items() if k[1] != "keywords"}


def answer_files(
    server: JsocServer, code: int, headers: dict[str, str], body: bytes = b"no"
) -> None:
    """Give every file request this answer."""
    usual = server._send

    def send(handler: Any, content: Any, kind: str, fault: str, finished: Any) -> None:
        if not handler.path.startswith("/SUM"):
            usual(handler, content, kind, fault, finished)
            return
        finished()
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    server._send = send  # type: ignore[method-assign]


# --- a file is not where the books say


def test_a_file_that_moved_is_asked_for_again(root: Path, jsoc: JsocServer) -> None:
    query_stage(config(jsoc))
    record = min(jsoc.archive.keywords)
    for segment in ("Br", "Bt"):
        old = jsoc.archive.files[record, segment]
        new = old.replace("/SUM61/", "/SUM62/")
        jsoc.archive.files[record, segment] = new
        jsoc.archive.bodies[new] = jsoc.archive.bodies.pop(old)
    assert fetch_stage(config(jsoc))["fetched"] == 40
    assert len(jsoc.asked("rs_list")) == 2
    assert "/SUM62/" in states(root)[record, "Br"].url


def test_a_file_that_went_to_tape_is_ordered(root: Path, jsoc: JsocServer) -> None:
    query_stage(config(jsoc))
    jsoc.tape = set(jsoc.archive.keywords)
    jsoc.faults["/SUM61"] = ["404"] * 40
    assert fetch_stage(config(jsoc, email=EMAIL))["fetched"] == 40
    assert len(jsoc.asked("exp_request")) == 1


def test_a_file_of_an_export_that_was_lost_is_ordered_again(root: Path, jsoc: JsocServer) -> None:
    jsoc.tape = set(jsoc.archive.keywords)
    fetch_stage(config(jsoc, email=EMAIL))
    key = min(states(root))
    (root / "archive" / states(root)[key].path).unlink()
    jsoc._bodies.clear()  # exports last for a week
    assert fetch_stage(config(jsoc, email=EMAIL))["fetched"] == 40
    assert len(jsoc.asked("exp_request")) == 2


def test_the_books_are_no_authority_for_addresses(root: Path, jsoc: JsocServer) -> None:
    query_stage(config(jsoc))
    with JsocServer(tiny_archive(20, ("Br", "Bt"))) as other:
        with open_journal(root / "archive") as journal:
            journal.write(
                replace(e, url=e.url.replace(jsoc.url, other.url), time=stamp(e))
                for e in states(root).values()
            )
        assert fetch_stage(config(jsoc))["fetched"] == 40
        assert other.requests == []


def test_a_damaged_keywords_file_is_written_again(root: Path, jsoc: JsocServer) -> None:
    fetch_stage(config(jsoc))
    first, second = sorted((root / "archive").rglob("keywords.json"))[:2]
    whole = first.read_bytes()
    first.write_text("{}")
    second.unlink()
    assert fetch_stage(config(jsoc))["new"] == 0
    assert first.read_bytes() == whole
    assert json.loads(second.read_text())["keywords"]["HARPNUM"] == 1
    assert len(jsoc.downloads()) == 40


def test_sets_by_name_keep_to_their_length() -> None:
    keys = [(f"{SHARP}[1][2012.01.{n % 28 + 1:02d}_{n // 28:02d}:00:00_TAI]", "Br")
            for n in range(600)]  # fmt: skip
    keys += [("aia.lev1_euv_12s[2014-01-01T00:00:01Z][171]", "image")]
    sets = list(sets_by_name(keys))
    assert all(len(text) <= MAX_SET for text, _ in sets)
    assert sum(text.count("_TAI") for text, _ in sets) == 600
    assert sets[-1] == ("aia.lev1_euv_12s[2014-01-01T00:00:01Z][171]", ("image",))


# --- a server that refuses


@pytest.mark.parametrize(
    ("code", "headers", "words", "most"),
    [
        (403, {}, "HTTP 403, 10 files", 10),
        (200, {"Content-Type": "text/html"}, "HTML page.*10 files", 24),
        (500, {}, "HTTP 500, 10 files", 24),
        (503, {}, "HTTP 503, 8 times in a row", 8),
    ],
)
def test_a_server_that_refuses_everything_ends_the_run(
    root: Path, jsoc: JsocServer, code: int, headers: dict[str, str], words: str, most: int
) -> None:
    usual = jsoc._send
    answer_files(jsoc, code, headers)
    with pytest.raises(DataError, match=f"does not serve at .*{words}"):
        fetch_stage(config(jsoc))
    assert len(jsoc.downloads()) <= most
    assert not any(entry.final for entry in states(root).values())
    assert sum(entry.state == "wanted" for entry in states(root).values()) >= 30
    jsoc._send = usual  # type: ignore[method-assign]
    assert fetch_stage(config(jsoc))["fetched"] == 40


def test_a_busy_server_costs_a_file_none_of_its_tries(jsoc: JsocServer) -> None:
    jsoc.faults["/SUM61"] = ["503"] * 3
    assert fetch_stage(config(jsoc, retries=0))["fetched"] == 40


def test_waits_are_those_that_are_asked_for_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert pause_s(0, 1.0, 900.0) == 900.0
    assert pause_s(9, 30.0) <= 240.0
    assert pause_s(0, 1.0, 1e9) == MAX_ASKED_S
    say_wait(TransferError("HTTP 503", wait_s=7200.0), MAX_ASKED_S)
    assert (
        "again in 3600 s, as it asks for 7200 s (never more than 3600)" in capsys.readouterr().err
    )


def test_a_file_that_another_process_never_finishes_stays_wanted(
    root: Path, jsoc: JsocServer, capfd: pytest.CaptureFixture[str]
) -> None:
    query_stage(config(jsoc))
    key = min(states(root))
    with lease(root / "archive", *key) as held:
        assert held is not None
        assert fetch_stage(config(jsoc, timeout_s=0.1))["wanted"] == 1
    assert "does not get on" in capfd.readouterr().err
    assert fetch_stage(config(jsoc))["fetched"] == 40


# --- headers


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/x", "http://a.b/x"),
        ("http://a.b/x", "http://a.b/x"),
        ("https://a.b/x", "https://a.b/x"),
        ("https://a.b:443/x", "https://a.b:443/x"),
    ],
)
def test_redirects_that_are_followed(location: str, there: str) -> None:
    assert redirected("http://a.b/SUM1", "http://a.b/SUM1", location) == there


@pytest.mark.parametrize(
    "location",
    ["https://a.c/x", "https://a.b:8443/x", "https://u@a.b/x", "http://a.b:99999/x", "http://[",
     "ftp://a.b/x", "//a.c/x", "file:///etc/passwd"],
)  # fmt: skip
def test_redirects_that_are_not(location: str) -> None:
    with pytest.raises(TransferError):
        redirected("http://a.b/SUM1", "http://a.b/SUM1", location)
    with pytest.raises(TransferError):
        redirected("https://a.b/SUM1", "https://a.b/SUM1", "http://a.b/SUM1")


@pytest.mark.parametrize(
    "text",
    ["\u00b2", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2300", "1.", ".",
     "9" * 400, "", "-3", "1e9", "\u0663", "Mon, 99 Foo 2020 00:00:00 GMT", "nan", "0x10"],
)  # fmt: skip
def test_odd_waits_are_no_waits_or_long_ones(text: str) -> None:
    assert retry_after_s(text) >= 0


HEADERS = ("Location", "Retry-After", "Content-Range", "Content-Type", "ETag", "Last-Modified",
           "Date", "Set-Cookie", "Content-Encoding")  # fmt: skip
ODD = ("http://[", "http://127.0.0.1:99999/", "http://a\x01b/", "\xb2", "9" * 400, "W/", '"', "",
       "bytes 0-1/2", "bytes 9-1/\xb2", "bytes */*", "Fri, 31 Dec 9999 23:59:59 -2300", "gzip",
       "Mon, 01 Jan 0001 00:00:00 +2359", "text/html; charset=\xff", "a=b; expires=\xb2",
       "//")  # fmt: skip


def test_no_header_ends_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.acquire.retry.MAX_ASKED_S", 0.001)
    chance = random.Random(3)
    with JsocServer(tiny_archive(1, ("Br", "Bt"))) as jsoc:
        query_stage(config(jsoc))
        usual = jsoc._send
        for _ in range(60):
            headers = {name: chance.choice(ODD) for name in chance.sample(HEADERS, 3)}
            jsoc._send = usual  # type: ignore[method-assign]
            answer_files(jsoc, chance.choice([200, 206, 302, 307, 416, 429, 500, 503]), headers)
            with pytest.raises(DataError) as found:
                fetch_stage(config(jsoc, retries=0), retry_failed=True)
            assert len(str(found.value).splitlines()) == 1
