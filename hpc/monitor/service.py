"""The HTTP service: /metrics, /sd/nodes, /healthz and a page of links. It changes nothing."""

from __future__ import annotations

import html
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from types import FrameType
from urllib.parse import parse_qs, urlsplit

from hpc.monitor.collect import Background, Collector
from hpc.monitor.data import Data, read_disk
from hpc.monitor.discovery import PORTS, targets
from hpc.monitor.faults import check_root
from hpc.monitor.runs import Runs
from hpc.monitor.samples import Sample, sample, text
from hpc.monitor.slurm import Slurm
from sunpipe.errors import UsageError
from sunpipe.paths import Layout

PATIENCE_S = 10.0  # for a client that sends its request slowly
PORT = 9808
JSON = "application/json"
HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
Answer = tuple[HTTPStatus, bytes, str]


class Monitor:
    """What is read, and how it is shown.

    Parameters
    ----------
    interval : float
        Seconds between two readings of each part.
    """

    def __init__(self, layout: Layout, interval: float, slurm: Slurm | None = None) -> None:
        self.layout = layout
        self.slurm = slurm or Slurm()
        self.cluster = Collector("slurm", self.slurm.read, interval)
        self.background = Background([
            self.cluster,  # first: who reads once judges the runs by it
            Collector("runs", Runs(layout, self._jobs).read, interval),
            Collector("data", Data(layout).read, interval),
            Collector("disk", lambda: read_disk(layout), interval),
        ])  # fmt: skip

    def _jobs(self) -> dict[str, str] | None:
        """States of the jobs that have not ended; None while Slurm does not tell."""
        return self.slurm.alive if self.cluster.fresh() else None

    @property
    def collectors(self) -> list[Collector]:
        """The parts."""
        return self.background.collectors

    def samples(self) -> list[Sample]:
        """All samples now."""
        about = sample("sunpipe_monitor_info", 1, version=version("sunpipe"))
        return [about, *self.background.collect()]

    def answer(self, path: str, accept: str = "") -> Answer:
        """Status, body and content type for a GET of `path`."""
        url = urlsplit(path)
        pages: dict[str, Callable[[], Answer]] = {
            "/": self._page,
            "/metrics": lambda: (HTTPStatus.OK, *text(self.samples(), accept)),
            "/sd/nodes": lambda: self._targets(parse_qs(url.query).get("exporter", [])),
            "/healthz": self._health,
        }
        if url.path not in pages:
            return HTTPStatus.NOT_FOUND, b"not found\n", PLAIN
        return pages[url.path]()

    def _targets(self, exporters: list[str]) -> Answer:
        """Service discovery; after an error Prometheus keeps the targets that it has."""
        if unknown := [name for name in exporters if name not in PORTS]:
            words = f"no exporter {unknown[0]!r}; there are {', '.join(PORTS)}\n"
            return HTTPStatus.BAD_REQUEST, words.encode(), PLAIN
        if self.cluster.finished is None or (self.cluster.error and not self.cluster.absent):
            return HTTPStatus.SERVICE_UNAVAILABLE, b"Slurm does not answer\n", PLAIN
        found = targets(self.slurm.own, self.slurm.nodes, exporters or PORTS)
        return HTTPStatus.OK, json.dumps(found, indent=1).encode(), JSON

    def _health(self) -> Answer:
        """200 while the parts are read in time; 503 with their names otherwise."""
        parts = {one.name: _words(one) for one in self.collectors}
        well = all(word in ("ok", "absent", "begins") for word in parts.values())
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        return status, json.dumps({"ok": well, "collectors": parts}).encode(), JSON

    def _page(self) -> Answer:
        rows = "".join(f"<tr><td>{html.escape(one.name)}<td>{html.escape(_words(one))}"
                       f"<td>{one.seconds:.2f} s" for one in self.collectors)  # fmt: skip
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>sunpipe monitor</title>'
            "<h1>sunpipe monitor</h1>"
            f"<p>Data root <code>{html.escape(str(self.layout.root))}</code></p>"
            '<ul><li><a href="/metrics">/metrics</a>: for Prometheus'
            '<li><a href="/sd/nodes">/sd/nodes</a>: nodes of running jobs, for http_sd_configs'
            '<li><a href="/healthz">/healthz</a>: whether all parts can be read</ul>'
            f"<table><tr><th>part<th>state<th>last reading{rows}</table></html>"
        )
        return HTTPStatus.OK, page.encode(), HTML


def _words(one: Collector) -> str:
    """The state of a part, without its error's words: those may name folders."""
    if one.absent:
        return "absent"
    if one.finished is None:
        return "failing" if one.hangs() else "begins"
    return "ok" if one.fresh() else "failing"


def _handler(monitor: Monitor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE_S
        server_version, sys_version = "sunpipe", ""
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body, kind = monitor.answer(self.path, self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Scrapes are not worth a line each."""

    return Handler


class Server(ThreadingHTTPServer):
    """One thread for each request; all end with the service."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, monitor: Monitor) -> None:
        if not host:  # the library would take it for all addresses
            raise UsageError("no address to listen on; 0.0.0.0 stands for all")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.address_family = family
        try:
            super().__init__((host, port), _handler(monitor))
        except (OSError, OverflowError) as error:
            words = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot listen on {host} port {port}: {words}") from None

    @property
    def url(self) -> str:
        """Where it answers."""
        host = self.server_address[0]
        name = f"[{host!s}]" if self.address_family == socket.AF_INET6 else str(host)
        return f"http://{name}:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that goes away in the middle is nobody's fault."""


@contextmanager
def serving(monitor: Monitor, host: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """Read and answer in the background while the block runs; port 0 takes a free one.

    Raises
    ------
    DataError
        There is no data root.
    UsageError
        The address cannot be listened on.
    """
    check_root(monitor.layout)
    server = Server(host, port, monitor)
    monitor.background.start()
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        monitor.background.stop()


@contextmanager
def until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM and ctrl-C set, in place of ending the process at once."""
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def once(monitor: Monitor) -> tuple[str, list[str]]:
    """Read every part one time; the text of all metrics, and the names of parts that failed."""
    check_root(monitor.layout)
    for one in monitor.collectors:
        one.once()
    failed = [one.name for one in monitor.collectors if one.error and not one.absent]
    return text(monitor.samples())[0].decode(), failed
