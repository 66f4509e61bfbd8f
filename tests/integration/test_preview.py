"""The preview page against a real Prometheus with hours of history, and in a real browser."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from hpc.monitor.preview import moments, preview, quoted
from hpc.monitor.preview_chart import Window
from hpc.monitor.preview_model import load
from hpc.monitor.preview_source import Client
from sunpipe.errors import SunpipeError, UsageError
from tests.conftest import free_port, need
from tests.monitor_history import NODES, RUN, SSL, write_blocks

HOURS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """Address of a Prometheus with history, and the moment at which it ends."""
    prometheus, promtool = need("prometheus"), need("promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    end = time.time() // 60 * 60
    write_blocks(promtool, folder / "data", end - HOURS * 3600, end)
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
    url = f"http://127.0.0.1:{free_port()}"
    with open(folder / "log", "wb") as out:
        process = subprocess.Popen(
            [prometheus, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
             f"--web.listen-address={url.removeprefix('http://')}"],
            cwd=folder, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        for _ in range(200):
            try:
                if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail((folder / "log").read_text())
        yield url, end
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def page(server: tuple[str, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "dashboards.html"
    return preview(server[0], out, seconds=HOURS * 3600, now=server[1])


class Outline(HTMLParser):
    """Panels of the page: title to what its article holds, and every tag that would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.panels: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self._article: list[str] = []
        self._title = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = dict(attributes)
        if tag in ("script", "img", "link", "iframe", "object") or any(
            name.startswith("on") for name in names
        ):
            self.faults.append(tag)
        if tag == "a" and not (names.get("href") or "").startswith("#"):
            self.faults.append(f"a {names.get('href')}")
        if tag == "article":
            self._article = []
        self._title = self._title or tag == "h4"
        self._article.append(f"{tag} {names.get('class') or ''}".strip())

    def handle_endtag(self, tag: str) -> None:
        self._title = self._title and tag != "h4"

    def handle_data(self, data: str) -> None:
        if self._title:
            self.panels[f"{len(self.panels)} {data}"] = self._article


def test_page_is_one_file_with_every_panel(page: Path) -> None:
    text = page.read_text()
    outline = Outline(text)
    assert outline.faults == []
    titles = [panel.title for board in load() for group in board.groups for panel in group.panels]
    assert [title.partition(" ")[2] for title in outline.panels] == titles
    assert len(text) < 2_000_000
    assert "url(" not in text
    empty = [name.partition(" ")[2] for name, tags in outline.panels.items() if "div empty" in tags]
    assert empty == ["Spread of the encoder's features"]  # of the other kind of training


def test_page_shows_what_prometheus_knows(page: Path) -> None:
    text = page.read_text()
    assert f"<dt>Run</dt><dd>{RUN}</dd>" in text  # the running one
    assert "<dt>Job</dt><dd>4711</dd>" in text  # the running one's, not the newest
    assert f"<dd>{', '.join(NODES)}</dd>" in text
    progress = re.search(r"<h4>Progress</h4>.*?<p class=\"value\"[^>]*>(.*?)</p>", text, re.DOTALL)
    assert progress is not None
    assert progress[1] == "41.3\u00a0%"  # (1200 + 900 * 0.96) / 5000
    assert re.search(r"checkpoint written</dt><dd>[56]</dd>", text)
    assert re.search(r"job started again</dt><dd>1</dd>", text)
    assert "scraped, but no series fits the choice" in text


def test_a_first_scrape_is_drawn(server: tuple[str, float], tmp_path: Path) -> None:
    url, end = server
    first = end - HOURS * 3600 + 4.0  # four seconds after it, with a step of eleven
    text = preview(url, tmp_path / "p.html", ["training"], None, 3600, now=first).read_text()
    losses = re.search(r"<h4>Losses</h4>.*?</article>", text, re.DOTALL)
    assert losses is not None
    dots = re.findall(r'class="line dot" d="M1000.0 [\d.]+h0"', losses[0])
    assert len(dots) == 2  # one each, at the right end


def test_chosen_run_range_and_dashboard(server: tuple[str, float], tmp_path: Path) -> None:
    url, end = server
    out = preview(url, tmp_path / "p.html", ["training"], SSL, 1800, now=end)
    text = out.read_text()
    assert f"<dd>{SSL}</dd>" in text
    assert 'id="cluster"' not in text
    assert "sunpipe_train_loss: scraped, but no series fits" in text
    assert (
        "sunpipe:train_quiet:seconds: scraped, but no series fits the choice made above at" in text
    )
    with pytest.raises(UsageError, match=rf"no run '9'; it has seen: {RUN}, {SSL}"):
        preview(url, tmp_path / "no.html", ["training"], "9", 1800, now=end)
    with pytest.raises(UsageError, match="no dashboard 'x'"):
        preview(url, tmp_path / "no.html", ["x"])
    with pytest.raises(UsageError, match="from 1m to 14d"):
        preview(url, tmp_path / "no.html", seconds=15 * 86400)
    assert [path.name for path in tmp_path.iterdir()] == ["p.html"]


def test_absent_metrics_are_named_with_who_offers_them(
    server: tuple[str, float], tmp_path: Path
) -> None:
    url, end = server
    text = preview(url, tmp_path / "p.html", seconds=600, now=end - 86400).read_text()
    assert "DCGM_FI_PROF_SM_ACTIVE was not there in this time; it comes from dcgm-exporter" in text
    assert "sunpipe:gpu_power:watts was not there in this time; it comes from recording" in text
    assert "sunpipe:gpus:count was not there in this time; it comes from recording.rules" in text
    assert "sunpipe_train_state was not there in this time; it comes from sunpipe monitor" in text
    assert "<dt>Run</dt><dd>none seen</dd>" in text


def test_numbers_end_with_the_scrapes(server: tuple[str, float], tmp_path: Path) -> None:
    url, end = server
    text = preview(url, tmp_path / "p.html", ["cluster"], None, 3600, now=end + 1200).read_text()
    idle = re.search(r"<h4>Idle GPUs</h4>.*?</article>", text, re.DOTALL)
    assert idle is not None
    assert "without such a value at this moment" in idle[0]
    gpus = re.search(r"<h4>GPUs</h4>.*?</article>", text, re.DOTALL)
    assert gpus is not None
    assert 'class="line"' in gpus[0]
    assert set(re.findall(r"</i>\w+ <b>(.*?)</b>", gpus[0])) == {"\u2013"}


def test_prometheus_down_or_another_server_is_one_line(tmp_path: Path) -> None:
    dead = f"http://user:secret@127.0.0.1:{free_port()}"
    with pytest.raises(SunpipeError, match="does not answer") as refused:
        preview(dead, tmp_path / "p.html")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(SunpipeError, match="is no address"):
        preview("127.0.0.1:9090", tmp_path / "p.html")

    class Web(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=web.serve_forever, args=(0.1,), daemon=True).start()
    try:
        with pytest.raises(SunpipeError, match=r"not as a Prometheus \(HTTP 404\)"):
            preview(f"http://127.0.0.1:{web.server_address[1]}", tmp_path / "p.html")
    finally:
        web.shutdown()
        web.server_close()
    assert list(tmp_path.iterdir()) == []


def test_names_from_prometheus_are_escaped(page: Path, server: tuple[str, float]) -> None:
    from hpc.monitor.preview import page as drawn_page
    from hpc.monitor.preview import render

    url, end = server
    window = Window(end - 600, end, 5)
    (board,) = load(("training",))
    with Client(url) as source:
        shown = drawn_page(board, source, window, {}, set())
    evil = "<script>alert(1)</script>\"'>"
    shown["choices"] = [("Run", evil)]
    for _, panels in shown["groups"]:
        for each in panels:
            if each["kind"] == "chart":
                each["chart"]["curves"][0]["name"] = evil
                each["chart"]["summary"] = evil
    text = render([shown], window, evil)
    assert "<script>" not in text
    assert text.count("&lt;script&gt;") > 10
    assert quoted('a"b\\c\n') == 'a\\"b\\\\c\\n'


def test_wrong_expression_is_refused_in_prometheus_words(server: tuple[str, float]) -> None:
    with Client(server[0]) as source, pytest.raises(SunpipeError, match="parse error"):
        source.newest("sum(", server[1])


def test_marks_are_single_moments(server: tuple[str, float]) -> None:
    url, end = server
    window = Window(end - HOURS * 3600, end, 20)
    expr = f'changes(sunpipe_train_requeues_total{{run="{RUN}"}}[2m]) > 0'
    with Client(url) as source:
        (moment,) = moments(source, expr, window)
    assert moment == pytest.approx(end - HOURS * 1800, abs=60)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "columns"), [(1024, 3), (600, 1)])
def test_page_in_a_browser(page: Path, tmp_path: Path, width: int, columns: int) -> None:
    probe = tmp_path / "probe.html"
    script = """<script>
    const places = [...document.querySelectorAll('article.timeseries')];
    const first = places[0].getBoundingClientRect().top;
    const row = places.filter(p => Math.abs(p.getBoundingClientRect().top - first) < 4).length;
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    const small = [...document.querySelectorAll('.x span, .y span, .legend span')]
      .filter(e => parseFloat(getComputedStyle(e).fontSize) < 9.5).length;
    const out = [...document.querySelectorAll('.y span, .value')].filter(e =>
      e.getBoundingClientRect().left < e.closest('article').getBoundingClientRect().left).length;
    document.title = JSON.stringify({row, wide, small, out});
    </script></body>"""
    text = page.read_text().replace("default-src 'none';", "script-src 'unsafe-inline';")
    probe.write_text(text.replace("</body>", script))
    done = subprocess.run(
        [need("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900", probe.as_uri()],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    found = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert found, done.stderr[-500:]
    assert found[1] == f'{{"row":{columns},"wide":0,"small":0,"out":0}}'
