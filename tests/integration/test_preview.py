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

from hpc.monitor import preview_numbers as numbers
from hpc.monitor.preview import moments, preview, quoted, substituted
from hpc.monitor.preview_chart import Window, area, bounds, legend, path, stack
from hpc.monitor.preview_model import Header, Panel, load
from hpc.monitor.preview_panels import table
from hpc.monitor.preview_source import Prometheus, Series
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
    assert progress[1] == "41.2\u00a0%"  # (1200 + 900 * 0.96) / 5000
    assert re.search(r"checkpoint written</dt><dd>[56]</dd>", text)
    assert re.search(r"job started again</dt><dd>1</dd>", text)
    assert "scraped, but no series fits the choice" in text


def test_chosen_run_range_and_dashboard(server: tuple[str, float], tmp_path: Path) -> None:
    url, end = server
    out = preview(url, tmp_path / "p.html", ["training"], SSL, 1800, now=end)
    text = out.read_text()
    assert f"<dd>{SSL}</dd>" in text
    assert 'id="cluster"' not in text
    assert "sunpipe_train_loss: scraped, but no series fits" in text
    assert "<b>Not running</b>" in text
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
    assert "DCGM_FI_DEV_GPU_UTIL was not there in this time; it comes from dcgm-exporter" in text
    assert "sunpipe:gpus:count was not there in this time; it comes from recording.rules" in text
    assert "sunpipe_train_state was not there in this time; it comes from sunpipe monitor" in text
    assert "<dt>Run</dt><dd>none seen</dd>" in text


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
    with Prometheus(url) as source:
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
    with Prometheus(server[0]) as source, pytest.raises(SunpipeError, match="parse error"):
        source.newest("sum(", server[1])


def test_marks_are_single_moments(server: tuple[str, float]) -> None:
    url, end = server
    window = Window(end - HOURS * 3600, end, 20)
    expr = f'changes(sunpipe_train_requeues_total{{run="{RUN}"}}[2m]) > 0'
    with Prometheus(url) as source:
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


# arithmetic


def panel(**changes: object) -> Panel:
    given: dict[str, object] = {
        "kind": "timeseries", "title": "t", "description": "d", "unit": "short", "width": 8,
        "targets": (), "low": None, "high": None, "decimals": None, "steps": (), "lined": False,
        "stacked": False, "stairs": False, "named": False, "spark": False, "none": "no data",
        "colours": {}, "headers": (), "sort": None,
    }  # fmt: skip
    return Panel(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0, "short", "0"), (1234567, "short", "1.23 M"), (999, "short", "999"), (0.5, "short", "0.500"),
    (-1.5, "short", "−1.50"), (float("nan"), "short", "–"), (2**30, "bytes", "1 GiB"),
    (0.156, "percentunit", "15.6 %"), (0.0, "bytes", "0 B"), (25.9, "s", "25.9 s"),
    (41.4, "dtdurations", "41 s"), (76320, "dtdurations", "21 h 12 min"),
    (90061, "dtdurations", "1 d 1 h"), (3599.9, "dtdurations", "1 h 0 min"),
    (7, "apples", "7 apples"),
    (1e-7, "short", "1.00e−07"),
])  # fmt: skip
def test_values_with_units(value: float, unit: str, text: str) -> None:
    assert numbers.text(value, unit).replace("\u00a0", " ") == text


@pytest.mark.parametrize(("low", "high", "unit", "labels"), [
    (0, 100, "short", ["0", "20", "40", "60", "80", "100"]),
    (0, 1, "percentunit", ["0", "20 %", "40 %", "60 %", "80 %", "100 %"]),
    (-1.2, 1.2, "short", ["−1.0", "−0.5", "0", "0.5", "1.0"]),
    (0, 4 * 2**30, "bytes", ["0", "1 GiB", "2 GiB", "3 GiB", "4 GiB"]),
    (0, 3600, "dtdurations", ["0", "15 min", "30 min", "45 min", "60 min"]),
    (0, 5000, "short", ["0", "1 k", "2 k", "3 k", "4 k", "5 k"]),
])  # fmt: skip
def test_ticks_are_round(low: float, high: float, unit: str, labels: list[str]) -> None:
    found = numbers.ticks(low, high, unit)
    assert [label.replace("\u00a0", " ") for _, label in found] == labels
    assert all(low - 1e-9 <= place <= high * (1 + 1e-9) for place, _ in found)


def test_moments_are_round_and_inside() -> None:
    start = 1_800_000_123.0
    for length, form in ((120, r"\d\d:\d\d:\d\d"), (21600, r"\d\d:\d\d"), (864000, r"\w{3} \d\d")):
        found = numbers.moments(start, start + length)
        assert 3 <= len(found) <= 7
        assert all(start <= moment <= start + length for moment, _ in found)
        assert all(re.fullmatch(form, label) for _, label in found)


def test_curves_break_where_samples_are_missing() -> None:
    window = Window(0, 100, 10)
    drawn = path([(0, 0.0), (10, 1.0), (50, 1.0), (60, 0.5)], window, 0, 1)
    assert drawn == "M0.0 300.0h0L100.0 0.0M500.0 0.0h0L600.0 150.0"
    assert path([(0, 0.0), (10, 1.0)], window, 0, 1, stairs=True) == "M0.0 300.0h0H100.0V0.0"


def test_stacked_curves_stand_on_each_other() -> None:
    lower, upper = stack([[(0, 1.0), (10, 2.0)], [(10, 3.0)]])
    assert upper == ([(0, 1.0), (10, 2.0)], [(0, 1.0), (10, 5.0)])
    assert area(lower[0], lower[1], Window(0, 10, 10), 0, 4) == (
        "M0.0 225.0L1000.0 150.0L1000.0 300.0L0.0 300.0Z")  # fmt: skip


def test_axis_holds_all_samples_and_a_near_limit() -> None:
    points = [[(0.0, 5.0), (1.0, 8.0)]]
    low, high = bounds(panel(), points)
    assert low < 5 < 8 < high
    near = panel(low=0.0, lined=True, steps=((float("-inf"), "green"), (10.0, "red")))
    assert bounds(near, points)[0] == 0
    assert bounds(near, points)[1] > 10
    far = panel(low=0.0, lined=True, steps=((100.0, "red"),))
    assert bounds(far, points)[1] < 10
    assert bounds(panel(high=6.0), points)[1] > 8  # never cut off
    assert bounds(panel(low=0.0), [[(0.0, 0.0)]]) == (0.0, 1.0)
    assert bounds(panel(low=0.0), [[(0.0, 0.02), (1.0, 0.02 + 1e-12)]])[1] > 0.021


def test_names_of_series() -> None:
    assert legend("{{node}} GPU {{gpu}}", {"node": "a", "gpu": "1"}, "x") == "a GPU 1"
    assert legend("{{name}} {{feature}}", {"name": "db"}, "x") == "db"
    assert legend("__auto", {}, "x") == "x"


def test_variables_are_replaced() -> None:
    window = Window(0, 21600, 68)
    filled = substituted('a{r="$run"}[$__rate_interval] ${run}', {"run": "x"}, window)
    assert filled == 'a{r="x"}[83s] x'


def test_answers_are_joined_into_rows() -> None:
    headers = (Header("run", "run", ""), Header("state", "state", ""),
               Header("Value #B", "kimg", "short"))  # fmt: skip
    shown = panel(kind="table", headers=headers, sort=("run", True))
    rows = table(shown, {
        "A": [Series({"run": "9-a", "state": "done"}, ((0, 1.0),)),
              Series({"run": "10-b", "state": "running"}, ((0, 1.0),))],
        "B": [Series({"run": "10-b"}, ((0, 5.0),)), Series({"run": "11-c"}, ((0, 6.0),))],
    })  # fmt: skip
    assert [[text for text, _ in row] for row in rows] == [
        ["11-c", "", "6"], ["10-b", "running", "5"], ["9-a", "done", ""]]  # fmt: skip
