"""A local JSOC: queries, exports and stored files, with faults on demand.

Answers in the shapes of the public interface: column-wise ``rs_list`` with text
values, hexadecimal QUALITY, marker strings for what is not there, HTTP 200 for
refused queries, exports that go through states 2, 6, 1 and 0. Segments are served
as JSOC stores them: no keywords in the header.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import socket
import struct as structs
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from preprocess.archive import parse_record
from tests.jsoc_answers import PSEUDO, Refused, select, struct, text_of
from tests.jsoc_archive import PRIME, SEGMENTS, Archive, sample_archive
from tests.jsoc_export import EMAIL, poll_export, request_export

Answer = dict[str, Any]


@dataclass
class Request:
    """One request as the server saw it."""

    time: float
    path: str
    agent: str
    concurrent: int
    range: str


class JsocServer:
    """Start with ``with JsocServer() as server``; `url` is its root.

    Attributes
    ----------
    faults : dict
        Part of a path to a list of faults, consumed one per request: ``"503"``,
        ``"404"``, ``"short"``, ``"reset"``, ``"html"``, ``"page"`` (HTML called a file),
        ``"flip"``, ``"stall"``, ``"cut"`` (a wrong length), ``"huge"``, ``"away"`` (a
        redirect to another host), ``"moved"`` (one on this host), or
        ``"503 Retry-After 0.2"``.
    fault_rate : float
        Share of file requests that get one of `fault_kinds`, by chance.
    missing, tape : set
        (record, segment) without a file, and records that are on tape.
    overrides, paths : dict
        (record, keyword or segment) to the text that rs_list prints.
    ranges, if_range : bool
        Whether parts of files are served, and whether If-Range is honoured.
    validators : tuple of str
        Headers that identify a file's bytes: ``ETag``, ``Last-Modified``, ``weak``.
    export_states : list of int
        Status of the answer to an export request and to each poll; 0 at the end.
    export_answers : list of dict
        Answers to export requests that come before all else.
    no_data : dict
        (record, segment) to the number of exports that cannot write it.
    recnum_names : bool
        Whether exports name files by record numbers, as without a template.
    requests : list of Request
    """

    def __init__(self, archive: Archive | None = None, delay_s: float = 0.0) -> None:
        self.archive = archive or sample_archive()
        self.delay_s = delay_s
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.fault_rate = 0.0
        self.fault_kinds: Sequence[str] = ("503", "short", "reset", "page", "flip")
        self.random = random.Random(1)
        self.missing: set[tuple[str, str]] = set()
        self.tape: set[str] = set()
        self.overrides: dict[tuple[str, str], str] = {}
        self.paths: dict[tuple[str, str], str] = {}
        self.ranges = self.if_range = True
        self.validators: tuple[str, ...] = ("ETag", "Last-Modified")
        self.export_states = [2, 6, 1, 0]
        self.export_answers: list[Answer] = []
        self.no_data: dict[tuple[str, str], int] = {}
        self.recnum_names = False
        self.exports: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self._bodies: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._open = 0
        self._stop = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: Any) -> None:
                return None

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client may be gone
                    owner.serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:  # a client that was killed
                return None

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> JsocServer:
        poll = {"poll_interval": 0.05}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=poll, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def downloads(self) -> list[str]:
        """Paths of the file requests, in order."""
        return [request.path for request in self.requests if request.path.startswith("/SUM")]

    def asked(self, operation: str) -> list[str]:
        """Record sets and ids that an operation was asked for, in order."""
        queries = [parse_qs(urlsplit(request.path).query) for request in self.requests]
        return [q.get("ds", q.get("requestid", [""]))[0]
                for q in queries if q.get("op") == [operation]]  # fmt: skip

    @property
    def max_concurrent(self) -> int:
        """Largest number of requests that were open at one time."""
        return max((request.concurrent for request in self.requests), default=0)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        parts = urlsplit(handler.path)
        is_file = parts.path.startswith("/SUM")
        with self._lock:
            self._open += 1
            self.requests.append(
                Request(time.monotonic(), handler.path, handler.headers["User-Agent"], self._open,
                        handler.headers.get("Range", ""))
            )  # fmt: skip
            fault = next(
                (queue.pop(0) for part, queue in self.faults.items()
                 if part in unquote(handler.path) and queue), ""
            )  # fmt: skip
            if is_file and not fault and self.random.random() < self.fault_rate:
                fault = self.random.choice(self.fault_kinds)
            if is_file:
                body = self.archive.bodies.get(parts.path, self._bodies.get(parts.path))
                kind = "application/octet-stream"
            else:
                answer = self.answer(parts.path, parse_qs(parts.query, keep_blank_values=True))
                text = None if answer is None else json.dumps(answer, ensure_ascii=False)
                body = None if text is None else text.encode("latin1")
                kind = "application/json"
        left = [1]

        def finished() -> None:  # before the last byte: the client goes on when it has that
            with self._lock:
                self._open -= left.pop() if left else 0

        try:
            self._stop.wait(self.delay_s / 2)
            self._send(handler, body, kind, fault, finished)
        finally:
            finished()

    def _send(
        self, handler: BaseHTTPRequestHandler, body: bytes | None, kind: str, fault: str,
        finished: Any,
    ) -> None:  # fmt: skip
        code, extra = 200, self._identity(body) if body and handler.path.startswith("/SUM") else {}
        if body is None or fault == "404":
            code, body, kind = 404, b"<html>not found</html>", "text/html"
        elif fault[:1] == "5":
            code, body, kind = int(fault[:3]), b"<html>maintenance</html>", "text/html"
            if "Retry-After" in fault:
                extra["Retry-After"] = fault.rpartition(" ")[2]
        elif fault in ("html", "page"):
            body = b"<html><body>JSOC is down for maintenance</body></html>"
            kind = "text/html" if fault == "html" else kind
        elif fault in ("away", "moved"):
            code, body = 302, b""
            host = "http://127.0.0.2:9" if fault == "away" else ""
            extra["Location"] = host + handler.path
        elif fault == "flip":
            place = len(body) * 3 // 4
            body = body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :]
        elif fault == "cut":
            body = body[: len(body) * 2 // 3]
        elif fault == "reset":
            # linger 0: closing sends RST instead of FIN
            linger = structs.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            finished()
            handler.connection.close()
            handler.wfile = io.BytesIO()  # type: ignore[assignment]
            handler.close_connection = True
            return
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        condition = handler.headers.get("If-Range", "") if self.if_range else ""
        same = not condition or condition in extra.values()
        if (
            asked
            and same
            and self.ranges
            and code == 200
            and not fault
            and int(asked[1]) < len(body)
        ):
            first = int(asked[1])
            code, extra["Content-Range"] = 206, f"bytes {first}-{len(body) - 1}/{len(body)}"
            body = body[first:]
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        declared = 10**10 if fault == "huge" else len(body)
        handler.send_header("Content-Length", str(declared))
        for key, value in extra.items():
            handler.send_header(key, value)
        half = len(body) // 2
        if not half:
            finished()
        handler.end_headers()
        handler.wfile.write(body[:half])
        self._stop.wait(30 if fault == "stall" else self.delay_s / 2)
        if fault in ("short", "huge"):
            handler.close_connection = True
            return
        finished()
        handler.wfile.write(body[half:])

    def _identity(self, body: bytes) -> dict[str, str]:
        """Headers of Apache that change with a file."""
        mark = zlib.crc32(body)
        date = formatdate(1.3e9 + mark % 10**8, usegmt=True)
        known = {"ETag": f'"{mark:x}"', "Last-Modified": date}
        found = {name: known[name] for name in self.validators if name in known}
        return {"ETag": f'W/"{mark:x}"', **found} if "weak" in self.validators else found

    def answer(self, path: str, query: dict[str, list[str]]) -> Answer | None:
        """The JSON document of a query; None for an unknown path."""
        operation = query.get("op", [""])[0]
        if path == "/cgi-bin/ajax/show_series":
            names = [{"name": name, "primekeys": ", ".join(keys), "note": ""}
                     for name, keys in PRIME.items()]  # fmt: skip
            return {"status": 0, "n": len(names), "names": names}
        if path == "/cgi-bin/ajax/checkAddress.sh":
            known = unquote(query["address"][0]) == EMAIL
            return {"status": 2 if known else 4, "msg": "an address"}
        if path == "/cgi-bin/ajax/jsoc_fetch":
            if operation == "exp_request":
                return request_export(self, query)
            return poll_export(self, query["requestid"][0])
        if path != "/cgi-bin/ajax/jsoc_info":
            return None
        record_set = query["ds"][0]
        held = {parse_record(record).series.lower(): parse_record(record).series
                for record in self.archive.keywords}  # fmt: skip
        series = held.get(record_set.partition("[")[0].lower())
        if series is None:
            return {"status": 1, "error": " jsoc_info: series not found."}
        if operation == "series_struct":
            return struct(self.archive, series)
        try:
            records = select(self.archive, record_set)
        except Refused:
            return {"status": 1, "error": " jsoc_info: syntax error in record-set query."}
        if operation == "rs_summary":
            return {"count": len(records), "runtime": 0.04, "status": 0}
        if operation == "rs_list":
            most = int(query.get("n", ["0"])[0])
            return self._list(records[: most or None], query)
        return {"status": 1, "error": f"unknown op {operation}"}

    def _list(self, records: list[str], query: dict[str, list[str]]) -> Answer:
        if not records:
            return {"count": 0, "runtime": 0.01, "status": 0}
        names = query.get("key", [""])[0].split(",")
        if "**ALL**" in names:
            at = names.index("**ALL**")
            names[at : at + 1] = list(self.archive.keywords[records[0]])
        segments = query.get("seg", [""])[0].split(",")
        return {
            "keywords": [{"name": name, "values": [self._value(r, name) for r in records]}
                         for name in names if name],
            "segments": [{"name": name, "values": [self.where(r, name) for r in records],
                          "dims": ["0x0" for _ in records], "cparms": ["compress Rice"],
                          "bzeros": ["0"], "bscales": ["0.01"]} for name in segments if name],
            "count": len(records), "runtime": 0.2, "status": 0,
        }  # fmt: skip

    def _value(self, record: str, name: str) -> Any:
        if (record, name) in self.overrides:
            return self.overrides[record, name]
        if name in PSEUDO:
            held = [where for (r, _), where in self.archive.files.items() if r == record]
            return {
                "*size*": str(sum(len(self.archive.bodies[where]) for where in held)),
                "*online*": "N" if record in self.tape else "Y",
                "*archive*": "Y",
                "*sunum*": held[0].split("/")[2].removeprefix("D") if held else "-1",
            }[name]
        values = self.archive.keywords[record]
        return text_of(name, values[name]) if name in values else "Invalid KeyLink"

    def where(self, record: str, segment: str) -> str:
        """What rs_list says of a segment's place."""
        if (record, segment) in self.paths:
            return self.paths[record, segment]
        if segment not in SEGMENTS[parse_record(record).series]:
            return "InvalidSegName"
        if record in self.tape or (record, segment) in self.missing:
            return "NoDataDirectory"
        return self.archive.files.get((record, segment), "NoDataDirectory")

    def deliver(self, path: str, record: str, segment: str) -> bool:
        """Put a file of the archive into the folder of an export."""
        if (record, segment) in self.missing or (record, segment) not in self.archive.files:
            return False
        self._bodies[path] = self.archive.bodies[self.archive.files[record, segment]]
        return True
