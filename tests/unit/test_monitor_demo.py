"""The quick start: a real exporter, a real Prometheus with the rules, and a page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from hpc.monitor import demo as quick
from hpc.monitor import prometheus_run
from hpc.monitor.rules import rule_files, write_rules
from hpc.slurm_query import NoSlurm, slurm_jobs
from sunpipe.errors import DataError, UsageError
from sunpipe.lock import exclusive
from sunpipe.paths import Layout
from tests.conftest import need
from tests.unit.test_monitor_runs import ROW, STATUS, make_run


def test_quick_start(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("prometheus")
    monkeypatch.setattr(quick, "SCRAPE_S", 1.0)
    started: list[prometheus_run.Prometheus] = []
    start = prometheus_run.start

    def noted(folder: Path, port: int = 0) -> prometheus_run.Prometheus:
        started.append(start(folder, port))
        return started[0]

    monkeypatch.setattr(prometheus_run, "start", noted)
    make_run(Layout(root), status={**STATUS}, rows=({**ROW, "time": time.time()},))
    seen: dict[str, float] = {}
    drawn = quick.preview

    def look(url: str, page: Path, seconds: float) -> Path:
        (prometheus,) = started
        for name in ("sunpipe_train_kimg", "sunpipe:train_data_wait:ratio"):
            seen[name] = prometheus.query(name)[0][1]
        assert "ExporterDown" not in prometheus.firing()
        with pytest.raises(DataError, match="Prometheus refuses"):
            prometheus.query("sum by (")
        return drawn(url, page, seconds=seconds)

    monkeypatch.setattr(quick, "preview", look)
    page = quick.demo(Layout(root), tmp_path / "demo", once=True)
    assert seen == {"sunpipe_train_kimg": 2.0, "sunpipe:train_data_wait:ratio": 0.15}
    assert "00000-demo" in page.read_text()
    said = capsys.readouterr().err
    assert f"watching   {root}" in said
    assert "http://127.0.0.1:" in said
    assert started[0].process.poll() is not None  # it ended with the demo
    config = tmp_path / "demo" / "prometheus.yml"
    assert config.read_text().startswith(quick.OWN)
    assert quick._own_folder(tmp_path / "demo") == tmp_path / "demo"  # it may be used again


@pytest.mark.parametrize("name", ["prometheus.yml", "alerts.rules.yml"])
def test_files_of_a_user_are_not_replaced(root: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "prometheus"
    write_rules(folder, rule_files("login1:9808"))
    if name != "prometheus.yml":
        (folder / "prometheus.yml").unlink()
    before = {path: path.read_text() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="yml is not of the demo"):
        quick.demo(Layout(root), folder, once=True)
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_a_folder_is_that_of_one_demo_at_a_time(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with exclusive(folder / quick.LOCK, "watching"):
        with pytest.raises(DataError, match=r"another process is keeping the history in .*demo"):
            quick.demo(Layout(root), folder, once=True)
        assert [path.name for path in folder.iterdir()] == [quick.LOCK]


def test_a_relative_folder_makes_a_link_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = quick._own_folder(Path("my page"))
    assert (folder / quick.PAGE).as_uri() == f"file://{tmp_path}/my%20page/dashboards.html"


class Slow:
    """A Prometheus of which one group of rules is evaluated late."""

    log = Path("prometheus.log")

    def __init__(self, evaluated: list[str]) -> None:
        self.evaluated = evaluated

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        return [({}, 1.0)]

    def get(self, path: str) -> dict[str, object]:
        return {"groups": [{"lastEvaluation": self.evaluated[-1]},
                           {"lastEvaluation": self.evaluated.pop(0)}]}  # fmt: skip


def test_the_page_waits_for_every_group_of_rules() -> None:
    before, after = (datetime.fromtimestamp(time.time() + s, UTC) for s in (-5, 60))
    form = "%Y-%m-%dT%H:%M:%S.123456789Z"  # Prometheus' own, and its word for never
    evaluated = ["0001-01-01T00:00:00Z", before.strftime(form), after.strftime(form)]
    quick._wait(Slow(evaluated), Event())  # type: ignore[arg-type]
    assert evaluated == []


def test_told_to_end_before_the_first_page(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def started(folder: Path, port: int) -> Iterator[object]:
        yield SimpleNamespace(url="http://127.0.0.1:1")

    def told(prometheus: object, event: Event) -> None:
        event.set()

    monkeypatch.setattr(prometheus_run, "running", started)
    monkeypatch.setattr(quick, "_wait", told)
    assert quick.demo(Layout(root), tmp_path / "demo") is None
    assert not (tmp_path / "demo" / quick.PAGE).exists()


def test_a_prometheus_that_does_not_come_up_is_told(tmp_path: Path) -> None:
    need("prometheus")
    write_rules(tmp_path, rule_files("127.0.0.1:1"))
    (tmp_path / "alerts.rules.yml").write_text("groups: 3\n")
    with pytest.raises(DataError, match=r"Prometheus did not come up: .*alerts\.rules\.yml"):
        prometheus_run.start(tmp_path)


def test_a_demo_without_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run make demo"):
        quick.demo(Layout(tmp_path / "none"))


def test_a_machine_of_no_cluster_has_no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoSlurm, match="squeue not found"):
        slurm_jobs()


def test_slurm_that_is_installed_but_not_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the words of Slurm 22.05's squeue on a machine without slurm.conf
    words = "squeue: error: resolve_ctls_from_dns_srv\nsqueue: fatal: Could not establish a"
    (tmp_path / "squeue").write_text(
        f"#!/bin/sh\necho '{words} configuration source' >&2\nexit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    with pytest.raises(NoSlurm, match="belongs to no Slurm cluster"):
        slurm_jobs()
