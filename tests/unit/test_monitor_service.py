"""The service over real HTTP: cached, with gaps for what cannot be read, and read only."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from hpc.monitor.collect import Background, Collector, NotHere
from hpc.monitor.names import NAMES
from hpc.monitor.samples import Sample, sample
from hpc.monitor.service import Monitor, once, serving, until_told
from hpc.monitor.slurm import Slurm
from hpc.slurm_query import Job, Node, NoSlurm
from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout


def quiet_slurm() -> Slurm:
    return Slurm(jobs=lambda: [], nodes=lambda: [Node("n1", "n1", "n1", "idle", "IDLE", ("main",),
                 4, 0, 0, 0, 1, "")], restarts=lambda user: {})  # fmt: skip


def kimg() -> list[Sample]:
    return [sample("sunpipe_train_kimg", 1, run="a")]


def test_a_part_that_fails_leaves_a_gap(capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[Exception] = [DataError("squeue has no answer"), ValueError("ours")]

    def read() -> list[Sample]:
        if errors:
            raise errors[0]
        return kimg()

    clock = [1000.0]
    one = Collector("slurm", read, 10.0, clock=lambda: clock[0])
    for _ in range(3):
        one.once()
    shown = {found.name: found.value for found in one.collect()}
    assert shown["sunpipe_collector_success"] == 0
    assert "sunpipe_train_kimg" not in shown
    assert capsys.readouterr().err.count("squeue has no answer") == 1
    del errors[0]
    one.once()
    assert "ValueError: ours" in one.error  # a fault of ours does not end the thread
    errors.clear()
    one.once()
    shown = {found.name: found.value for found in one.collect()}
    assert (shown["sunpipe_collector_success"], shown["sunpipe_train_kimg"]) == (1, 1)
    clock[0] += 31.0  # the reading after it hangs
    shown = {found.name: found.value for found in one.collect()}
    assert shown["sunpipe_collector_success"] == 0
    assert "sunpipe_train_kimg" not in shown


def test_an_empty_address_is_not_all_addresses(root: Path) -> None:
    with pytest.raises(UsageError, match="no address"), serving(Monitor(Layout(root), 1.0), ""):
        pass


def test_a_first_reading_that_hangs_is_told(root: Path) -> None:
    clock = [1000.0]
    monitor = Monitor(Layout(root), 10.0)
    hung = Collector("runs", list, 10.0, clock=lambda: clock[0], begun=1000.0)
    monitor.background.collectors = [hung]
    assert monitor.answer("/healthz")[0] == 200  # it has just begun
    assert hung.collect() == []
    clock[0] += 31.0
    assert monitor.answer("/healthz")[:2] == (
        503, b'{"ok": false, "collectors": {"runs": "failing"}}')  # fmt: skip
    assert [one.value for one in hung.collect()] == [0]


def test_what_is_not_here_is_no_failure() -> None:
    def read() -> list[Sample]:
        raise NotHere("no Slurm")

    one = Collector("slurm", read, 1.0)
    one.once()
    assert one.collect() == []


def test_what_was_here_and_is_gone_fails(root: Path) -> None:
    gone: list[NoSlurm] = []

    def jobs() -> list[Job]:
        if gone:
            raise gone[0]
        return []

    slurm = quiet_slurm()
    slurm._jobs = jobs
    monitor = Monitor(Layout(root), 60.0, slurm)
    monitor.cluster.once()
    assert monitor.answer("/sd/nodes")[0] == 200
    gone.append(NoSlurm("squeue finds no slurm.conf"))
    monitor.cluster.once()
    shown = {(one.name, *one.labels): one.value for one in monitor.cluster.collect()}
    assert shown["sunpipe_collector_success", "slurm"] == 0
    assert monitor.answer("/healthz")[0] == 503
    assert monitor.answer("/sd/nodes")[0] == 503


def test_a_data_root_that_goes_is_told(root: Path) -> None:
    layout = Layout(root)
    layout.runs.mkdir(exist_ok=True)
    with serving(Monitor(layout, 0.1, quiet_slurm())) as server:
        client = httpx.Client(base_url=server.url, trust_env=False)
        with client:
            assert client.get("/healthz").status_code == 200
            root.rename(root.with_name("elsewhere"))
            end = time.monotonic() + 10
            while '"disk": "failing"' not in (health := client.get("/healthz")).text:
                assert time.monotonic() < end
                time.sleep(0.05)
            text = client.get("/metrics").text
        assert health.status_code == 503
        assert 'sunpipe_collector_success{collector="disk"} 0.0' in text
        assert "sunpipe_disk_free_bytes" not in text
    with pytest.raises(DataError, match="set SUNPIPE_ROOT"), serving(Monitor(layout, 1.0)):
        pass


def test_a_slow_part_delays_no_scrape(root: Path) -> None:
    free = threading.Event()

    def slow() -> list[Job]:
        free.wait(30)
        return []

    monitor = Monitor(Layout(root), 0.1, Slurm(jobs=slow, nodes=list))
    with serving(monitor) as server:
        began = time.monotonic()
        answer = httpx.get(f"{server.url}/metrics", trust_env=False)
        assert time.monotonic() - began < 5
        assert 'sunpipe_collector_success{collector="disk"} 1.0' in answer.text
        assert 'collector="slurm"' not in answer.text
        assert httpx.get(f"{server.url}/sd/nodes", trust_env=False).status_code == 503
        free.set()


def test_reading_takes_a_tenth_of_the_time_at_most() -> None:
    reads: list[float] = []

    def read() -> list[Sample]:
        reads.append(time.monotonic())
        time.sleep(0.1)
        return []

    background = Background([Collector("disk", read, 0.0)])
    background.start()
    time.sleep(1.0)
    background.stop()
    assert 1 <= len(reads) <= 2


def test_pages(root: Path) -> None:
    with serving(Monitor(Layout(root), 60.0, quiet_slurm())) as server:
        client = httpx.Client(base_url=server.url, trust_env=False)
        with client:
            plain = client.get("/metrics")
            assert plain.headers["content-type"].startswith("text/plain; version=")
            opened = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
            assert opened.headers["content-type"].startswith("application/openmetrics-text")
            assert opened.text.endswith("# EOF\n")
            assert client.head("/metrics").content == b""
            assert client.get("/sd/nodes").json() == []
            assert client.get("/sd/nodes?exporter=x").status_code == 400
            health = client.get("/healthz")
            assert (health.status_code, health.json()["ok"]) == (200, True)
            page = client.get("/")
            assert "/metrics" in page.text
            assert page.headers["x-content-type-options"] == "nosniff"
            assert client.get("/../etc/passwd").status_code == 404
            assert client.post("/metrics").status_code == 501
        families = {line.split()[2] for line in plain.text.splitlines() if line[:6] == "# HELP"}
        known = {f"{name}_total" if one.kind == "counter" else name for name, one in NAMES.items()}
        assert families <= known
        with (
            pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1 port"),
            serving(Monitor(Layout(root), 60.0, quiet_slurm()), port=int(server.server_address[1])),
        ):
            pass


def test_health_names_what_fails(root: Path) -> None:
    def broken() -> list[Job]:
        raise DataError(f"squeue failed: secret {root}")

    monitor = Monitor(Layout(root), 60.0, Slurm(jobs=broken))
    for one in monitor.collectors:
        one.once()
    status, body, _ = monitor.answer("/healthz")
    assert status == 503
    assert json.loads(body)["collectors"]["slurm"] == "failing"
    assert b"secret" not in body + monitor.answer("/")[1] + monitor.answer("/metrics")[1]


def test_once_prints_the_rest_and_names_what_failed(root: Path, tmp_path: Path) -> None:
    (root / "runs").write_text("no folder")
    text, failed = once(Monitor(Layout(root), 15.0, quiet_slurm()))
    assert failed == ["runs"]
    assert 'sunpipe_slurm_cluster_nodes{state="idle"} 1.0' in text
    with pytest.raises(DataError, match="does not exist"):
        once(Monitor(Layout(tmp_path / "none"), 15.0, quiet_slurm()))


def test_sigterm_ends_the_wait() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_told() as told:
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before
