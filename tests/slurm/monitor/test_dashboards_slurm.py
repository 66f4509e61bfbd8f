"""Every panel's expression on a real Prometheus that scrapes the real exporter."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hpc.monitor.preview import preview, substituted
from hpc.monitor.preview_chart import Window
from hpc.monitor.preview_model import Board, load
from hpc.monitor.preview_source import Client
from tests.slurm.conftest import SMALL
from tests.slurm.monitor.watched import Watched

pytestmark = pytest.mark.slurm
OTHER = "00099-other"  # a run of which the trainer told everything, ended
# Of a GAN on a CPU without adaptive augmentation nothing can tell these.
NOT_HERE = {"Augmentation strength", "Spread of the encoder's features", "Power", "Energy",
            "Other distances"}  # fmt: skip
GPU = 'gpu="0",UUID="GPU-0",device="nvidia0",modelName="NVIDIA H200",Hostname="n1"'
# As dcgm-exporter and node exporter word what this machine has no hardware for.
TEXT = "".join(f"{name} {value}\n" for name, value in {
    **{f"DCGM_FI_{name}{{{GPU}}}": value for name, value in {
        "DEV_GPU_UTIL": 96, "PROF_SM_ACTIVE": 0.71, "PROF_PIPE_TENSOR_ACTIVE": 0.41,
        "PROF_DRAM_ACTIVE": 0.52, "DEV_FB_USED": 61234, "DEV_FB_FREE": 82000,
        "DEV_POWER_USAGE": 612.5, "DEV_GPU_TEMP": 58, "DEV_MEMORY_TEMP": 71,
        "DEV_SM_CLOCK": 1980, "DEV_XID_ERRORS": 0, "PROF_NVLINK_TX_BYTES": 8123456789,
        "PROF_NVLINK_RX_BYTES": 8123456000, "PROF_PCIE_TX_BYTES": 512345678,
        "PROF_PCIE_RX_BYTES": 912345678}.items()},
    'node_infiniband_port_data_received_bytes_total{device="mlx5_0",port="1"}': 4.5e12,
    'node_infiniband_port_data_transmitted_bytes_total{device="mlx5_0",port="1"}': 4.4e12,
    "node_pressure_cpu_waiting_seconds_total": 50.5,
    "node_pressure_memory_waiting_seconds_total": 0.5,
    "node_pressure_io_waiting_seconds_total": 5.5,
    'node_disk_read_bytes_total{device="nvme0n1"}': 1e12,
    'node_disk_written_bytes_total{device="nvme0n1"}': 1e11,
    'node_disk_io_time_seconds_total{device="nvme0n1"}': 123.4,
    'node_network_receive_bytes_total{device="eth0"}': 1e12,
    'node_network_transmit_bytes_total{device="eth0"}': 1e12,
}.items())  # fmt: skip


class Recorded(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_: object) -> None:
        pass


def other_run(watched: Watched) -> None:
    """A run folder with what needs devices, augmentation and an encoder."""
    folder = watched.root / "runs" / OTHER
    folder.mkdir()
    row = {"nimg": 64000, "kimg": 64.0, "sec_per_kimg": 2.0, "ada_p": 0.2, "collapse": 0.3,
           "tick_s": 8.0, "time": time.time()}  # fmt: skip
    (folder / "stats.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "metric-distances.jsonl").write_text(
        json.dumps({"nimg": 64000, "kid_random": 0.1}) + "\n"
    )
    (folder / "config.json").write_text("{}")
    (folder / "status.json").write_text(json.dumps({"state": "done", "energy_j": 3.6e6}))


@pytest.fixture(scope="module")
def complete(watched: Watched) -> Iterator[Watched]:
    """`watched` with a waiting and an ended job, hardware for the job's node, and another run."""
    node = watched.slurm.show(watched.job)["NodeList"]
    config = watched.prometheus.log.parent / "prometheus.yml"
    before = config.read_text()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorded)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    job = (f"  - job_name: recorded\n    static_configs:\n"
           f'      - targets: ["127.0.0.1:{server.server_address[1]}"]\n'
           f"        labels: {{node: {node}}}\n")  # fmt: skip
    config.write_text(before.replace("node: n1", f"node: {node}") + job)
    watched.prometheus.process.send_signal(signal.SIGHUP)
    other_run(watched)
    sbatch = (*SMALL[1:], "--nodes=1")
    held = watched.slurm.sbatch(*sbatch, "--hold", "--job-name=sunpipe-embed", "--wrap=true",
                                root=watched.root)  # fmt: skip
    watched.slurm.sbatch(*sbatch, "--job-name=sunpipe-index", "--wrap=true", root=watched.root)
    try:
        for expr in (
            "DCGM_FI_DEV_GPU_UTIL",
            f'sunpipe_train_energy_joules_total{{run="{OTHER}"}}',
            'sunpipe_slurm_pending_jobs{reason="JobHeldUser"} > 0',
            'sunpipe_slurm_own_jobs_ended_total{stage="index",state="completed"} > 0',
            "sunpipe_train_metric",
            "sunpipe_train_checkpoint_bytes",
            "sunpipe:train_unsaved:seconds",
            "node_load1",
            f'sunpipe:gpu_power:watts{{node="{node}"}}',
            f'sunpipe:node_disk_written:bytes_per_second{{node="{node}"}} > 0',
            f'sunpipe:node_cpu_busy:ratio{{node="{node}"}}',
        ):
            watched.until(expr, lambda expr=expr: watched.query(expr))  # type: ignore[misc]
        watched.until("two samples for rates", lambda: watched.query(
            'rate(node_infiniband_port_data_received_bytes_total[1m])'
            f' and on () rate(sunpipe_train_energy_joules_total{{run="{OTHER}"}}[1m])'
            " and on () rate(node_cpu_seconds_total[1m])"))  # fmt: skip
        yield watched
    finally:
        watched.slurm.run("scancel", held)
        shutil.rmtree(watched.root / "runs" / OTHER)
        config.write_text(before)
        watched.prometheus.process.send_signal(signal.SIGHUP)
        server.shutdown()
        server.server_close()


def empty(found: Watched, board: Board, run: str = "00000-tiny") -> set[str]:
    """Titles of panels of which an expression has no answer."""
    now = time.time()
    values = {"run": run, "slurm_job": found.job, "node": ".*", "partition": ".*"}
    window = Window(now - 600, now, 5.0)
    with Client(found.prometheus.url) as source:
        return {panel.title for group in board.groups for panel in group.panels
                if not all(source.newest(substituted(target.expr, values, window), now)
                           for target in panel.targets)}  # fmt: skip


def misspelt(board: Board, change: Callable[[str], str]) -> Board:
    """The dashboard with changed expressions."""
    groups = tuple(replace(group, panels=tuple(
        replace(panel, targets=tuple(replace(target, expr=change(target.expr))
                                     for target in panel.targets))
        for panel in group.panels)) for group in board.groups)  # fmt: skip
    return replace(board, groups=groups)


def test_every_expression_has_data(complete: Watched) -> None:
    cluster, training, hardware = load()
    assert empty(complete, cluster) == set()
    assert empty(complete, hardware) == set()
    assert empty(complete, training) <= NOT_HERE
    assert empty(complete, training, OTHER) & NOT_HERE == set()


def test_a_misspelt_metric_is_found(complete: Watched) -> None:
    cluster, training, hardware = load()
    wrong = misspelt(training, lambda expr: re.sub(r"train_kimg\b", "train_kimgs", expr))
    assert empty(complete, wrong) - NOT_HERE == {"Progress", "Images shown"}
    wrong = misspelt(hardware, lambda expr: expr.replace("temperature:", "temp:"))
    assert empty(complete, wrong) == {"Hottest GPU", "Temperature"}
    wrong = misspelt(cluster, lambda expr: expr.replace("sunpipe:gpus", "sunpipe:gpu"))
    assert empty(complete, wrong) == {"Idle GPUs", "GPUs"}


def test_marks_are_valid_and_show_checkpoints(complete: Watched) -> None:
    values = {"run": "00000-tiny", "slurm_job": complete.job}
    now = time.time()
    window = Window(now - 600, now, 5.0)
    with Client(complete.prometheus.url) as source:
        found = {marker.title: source.newest(substituted(marker.expr, values, window), now)
                 for board in load() for marker in board.markers}  # fmt: skip
    assert len(found) == 4  # one title is that of two dashboards
    complete.until("a second checkpoint", lambda: complete.query(
        "changes(sunpipe_train_last_checkpoint_timestamp_seconds[2m]) > 0"))  # fmt: skip


def test_the_page_shows_the_running_training(complete: Watched) -> None:
    page = preview(complete.prometheus.url, complete.root / "page.html", seconds=120)
    text = page.read_text()
    assert re.search(r"<dt>Run</dt><dd>00000-tiny</dd>", text)
    assert re.search(rf"<dt>Job</dt><dd>{complete.job}</dd>", text)
    assert "JobHeldUser" in text
    (state,) = re.findall(r'<p class="value"[^>]*>(running|done|stopped|failed)</p>', text)
    assert state == "running"
