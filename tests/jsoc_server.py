"""A local JSOC: the queries and stored files of the bundled sample, with faults on demand.

Answers in the shapes of the public interface: column-wise ``rs_list`` with text
values, hexadecimal QUALITY, marker strings for what is not there, HTTP 200 for
refused queries. Segments are served as JSOC stores them: no keywords in the
header.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import struct
import threading
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from astropy.io import fits

from preprocess.archive import parse_record
from preprocess.sample import sample_files
from sunpipe.fits import read_segment

SERIES = "hmi.sharp_cea_720s"
SEGMENTS = ("magnetogram", "bitmap", "Dopplergram", "continuum", "Bp", "Bt", "Br", "Bp_err",
            "Bt_err", "Br_err", "conf_disambig")  # fmt: skip
UNITS = {"Br": "Mx/cm^2", "Bt": "Mx/cm^2", "Bp": "Mx/cm^2", "magnetogram": "Gauss"}
IN_FILE = {"SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "XTENSION", "PCOUNT", "GCOUNT",
           "EXTEND", "BSCALE", "BZERO", "BLANK", "CHECKSUM", "DATASUM", "COMMENT", "HISTORY",
           "BUNIT", "TFIELDS", "DATAMIN", "DATAMAX", ""}  # fmt: skip
STRUCTURE = re.compile(r"(XTENSION|SIMPLE|BITPIX|NAXIS\d?|[PG]COUNT|EXTEND|TFIELDS|T(TYPE|FORM)\d"
                       r"|Z\w+|BSCALE|BZERO|BLANK)$")  # fmt: skip


def stored_bytes(path: Path) -> bytes:
    """A segment as JSOC stores it: the same pixels, no keywords, valid checksums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, disable_image_compression=True) as hdus:
            for hdu in hdus:
                for key in list(dict.fromkeys(hdu.header)):
                    if not STRUCTURE.match(key):
                        hdu.header.remove(key, ignore_missing=True, remove_all=True)
            out = io.BytesIO()
            hdus.writeto(out, checksum=True, output_verify="ignore")
    return out.getvalue()


def _kind(name: str, value: Any) -> str:
    if name in ("T_REC", "T_OBS", "DATE__OBS", "DATE"):
        return "time"
    if isinstance(value, int):
        return "int"
    return "double" if isinstance(value, float) else "string"


def _text(name: str, value: Any) -> str:
    """A value as rs_list prints it."""
    if name == "QUALITY":
        return f"0x{int(value) & 0xFFFFFFFF:08x}"
    return "MISSING" if value is None or value != value else str(value)


def prime_keys(record: str) -> tuple[str, ...]:
    """Values of a record's prime keys, in the series' order."""
    name = parse_record(record)
    if name.harpnum is not None:
        return str(name.harpnum), name.t_rec
    return name.t_rec, str(name.number or "")


@dataclass
class Request:
    """One request as the server saw it."""

    time: float
    path: str
    agent: str
    concurrent: int


@dataclass
class Archive:
    """What the server serves: keywords and files by record."""

    keywords: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)


@cache
def sample_archive() -> Archive:
    """The bundled sample as an archive; made once, not to be changed."""
    archive = Archive()
    for record, segment, path, _ in sample_files():
        unit = 40_000_000 + sum(map(ord, record))
        where = f"/SUM61/D{unit}/S00000/{segment}.fits"
        archive.files[record, segment] = where
        archive.bodies[where] = stored_bytes(path)
        if segment == "Br":
            header = read_segment(path).header
            archive.keywords[record] = {
                key.replace("-", "__"): value
                for key, value in header.items()
                if key not in IN_FILE and not re.match(r"Z|T(TYPE|FORM)\d", key)
            }
    return archive


class JsocServer:
    """Start with ``with JsocServer() as server``; `url` is its root.

    Attributes
    ----------
    faults : dict
        Part of a path to a list of faults, consumed one per request: ``"503"``,
        ``"404"``, ``"short"``, ``"reset"``, ``"html"``, ``"flip"``, ``"stall"``, or a
        ``"503 Retry-After 0.2"``.
    missing : set of (record, segment)
        Answered with the marker NoDataDirectory.
    overrides : dict
        (record, keyword) to the text that rs_list prints.
    paths : dict
        (record, segment) to the text that rs_list prints.
    requests : list of Request
    """

    def __init__(self) -> None:
        self.archive = sample_archive()
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.missing: set[tuple[str, str]] = set()
        self.overrides: dict[tuple[str, str], str] = {}
        self.paths: dict[tuple[str, str], str] = {}
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._open = 0
        self._stop = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                return None

            def do_GET(self) -> None:
                owner.serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> JsocServer:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
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

    @property
    def max_concurrent(self) -> int:
        """Largest number of requests that were open at one time."""
        return max((request.concurrent for request in self.requests), default=0)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        with self._lock:
            self._open += 1
            self.requests.append(
                Request(time.monotonic(), handler.path, handler.headers["User-Agent"], self._open)
            )
            fault = next(
                (queue.pop(0) for part, queue in self.faults.items()
                 if part in unquote(handler.path) and queue), ""
            )  # fmt: skip
        try:
            parts = urlsplit(handler.path)
            if parts.path.startswith("/SUM"):
                body, kind = self.archive.bodies.get(parts.path), "application/octet-stream"
            else:
                answer = self.answer(parts.path, parse_qs(parts.query, keep_blank_values=True))
                body = None if answer is None else json.dumps(answer).encode("latin1")
                kind = "application/json"
            self._send(handler, body, kind, fault)
        finally:
            with self._lock:
                self._open -= 1

    def _send(
        self, handler: BaseHTTPRequestHandler, body: bytes | None, kind: str, fault: str
    ) -> None:
        code = 200
        extra = {}
        if body is None or fault == "404":
            code, body, kind = 404, b"<html>not found</html>", "text/html"
        elif fault[:1] == "5":
            code, body, kind = int(fault[:3]), b"<html>maintenance</html>", "text/html"
            if "Retry-After" in fault:
                extra["Retry-After"] = fault.rpartition(" ")[2]
        elif fault == "html":
            body, kind = b"<html><body>JSOC is down for maintenance</body></html>", "text/html"
        elif fault == "flip":
            place = len(body) * 3 // 4
            body = body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :]
        elif fault == "reset":
            # linger 0: closing sends RST instead of FIN
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            handler.connection.close()
            handler.wfile = io.BytesIO()  # type: ignore[assignment]
            return
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for key, value in extra.items():
            handler.send_header(key, value)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may be gone
            handler.wfile.write(body[: len(body) // 2])
            if fault == "stall":
                self._stop.wait(5)
            if fault != "short":
                handler.wfile.write(body[len(body) // 2 :])

    def answer(self, path: str, query: dict[str, list[str]]) -> dict[str, Any] | None:
        """The JSON document of a query; None for an unknown path."""
        operation = query.get("op", [""])[0]
        if path == "/cgi-bin/ajax/show_series":
            return {"status": 0, "n": 1, "names": [
                {"name": SERIES, "primekeys": "HARPNUM, T_REC", "note": "SHARP, CEA"}]}  # fmt: skip
        if path == "/cgi-bin/ajax/checkAddress.sh":
            return {"status": 4, "msg": f"unknown {unquote(query['address'][0])}"}
        if path != "/cgi-bin/ajax/jsoc_info":
            return None
        record_set = query["ds"][0]
        if record_set.partition("[")[0].lower() != SERIES:
            return {"status": 1, "error": " jsoc_info: series not found."}
        if operation == "series_struct":
            return self._struct()
        if operation == "rs_list":
            return self._list(record_set, query)
        return {"status": 1, "error": f"unknown op {operation}"}

    def _struct(self) -> dict[str, Any]:
        first = next(iter(self.archive.keywords.values()))
        return {
            "note": "SHARP, CEA", "retention": 60, "unitsize": 1, "archive": 1, "tapegroup": 1,
            "primekeys": ["HARPNUM", "T_REC"], "dbindex": ["HARPNUM", "T_REC"],
            "keywords": [{"name": name, "type": _kind(name, value), "recscope": "variable",
                          "defval": "", "units": "", "note": ""} for name, value in first.items()],
            "links": [],
            "segments": [{"name": name, "type": "int", "units": UNITS.get(name, "none"),
                          "protocol": "fits", "dims": "VARxVAR", "note": ""} for name in SEGMENTS],
            "status": 0,
        }  # fmt: skip

    def _select(self, record_set: str) -> list[str] | None:
        brackets = re.findall(r"\[([^\]]*)\]", record_set)
        found = sorted(self.archive.keywords, key=lambda r: parse_record(r).order)
        for place, text in enumerate(brackets):
            if not text:
                continue
            if place > 1 or not re.fullmatch(r"[0-9.:_,TAI]+", text):
                return None
            wanted = text.split(",")
            found = [r for r in found if prime_keys(r)[place] in wanted]
        return found

    def _list(self, record_set: str, query: dict[str, list[str]]) -> dict[str, Any]:
        records = self._select(record_set)
        if records is None:
            return {"status": 1, "error": " jsoc_info: syntax error in record-set query."}
        if not records:
            return {"count": 0, "runtime": 0.01, "status": 0}
        names = query.get("key", [""])[0].split(",")
        if names == ["**ALL**"]:
            names = list(next(iter(self.archive.keywords.values())))
        segments = query.get("seg", [""])[0].split(",")
        return {
            "keywords": [{"name": name, "values": [self._value(r, name) for r in records]}
                         for name in names if name],
            "segments": [{"name": name, "values": [self._path(r, name) for r in records],
                          "dims": ["0x0" for _ in records], "cparms": ["compress Rice"],
                          "bzeros": ["0"], "bscales": ["0.01"]} for name in segments if name],
            "count": len(records), "runtime": 0.2, "status": 0,
        }  # fmt: skip

    def _value(self, record: str, name: str) -> str:
        if (record, name) in self.overrides:
            return self.overrides[record, name]
        values = self.archive.keywords[record]
        return _text(name, values[name]) if name in values else "Invalid KeyLink"

    def _path(self, record: str, segment: str) -> str:
        if (record, segment) in self.paths:
            return self.paths[record, segment]
        if segment not in SEGMENTS:
            return "InvalidSegName"
        if (record, segment) in self.missing:
            return "NoDataDirectory"
        return self.archive.files.get((record, segment), "NoDataDirectory")
