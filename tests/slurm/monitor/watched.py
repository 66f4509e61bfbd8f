"""A real Prometheus that scrapes the real exporter while a real Slurm runs a real training.

The fixture `watched` (conftest.py) is one for all tests of this folder: whoever
breaks something mends it again.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from hpc.monitor import prometheus_run
from hpc.monitor.rules import rule_files, write_rules
from tests.conftest import REPO, free_port, need
from tests.slurm.conftest import SMALL, Slurm

SCALE = 0.01  # of the alerts' times: 15 minutes are 9 seconds
TRAINING = ("--nodes=1", "jobs/train_stylegan_256.sh", "-c", "configs/tiny.toml",
            "--set", "train.kimg=100000", "--set", "train.tick_kimg=0.032",
            "--set", "train.checkpoint_kimg=0.128", "--set", "train.metrics.kimg=0.128",
            "--set", "train.metrics.count=64", "--set", "train.image_kimg=100")  # fmt: skip

# What one H200 under dcgm-exporter serves, in its own form (default-counters.csv).
DCGM = "".join(
    f'{name}{{gpu="{gpu}",UUID="GPU-{gpu}",device="nvidia{gpu}",modelName="NVIDIA H200",'
    f'Hostname="n1"}} {value}\n'
    for gpu in (0, 1)
    for name, value in {
        "DCGM_FI_DEV_GPU_UTIL": 96, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": 0.41,
        "DCGM_FI_PROF_DRAM_ACTIVE": 0.52, "DCGM_FI_DEV_FB_USED": 61234,
        "DCGM_FI_DEV_FB_FREE": 82000, "DCGM_FI_DEV_POWER_USAGE": 612.5,
        "DCGM_FI_DEV_GPU_TEMP": 58, "DCGM_FI_DEV_SM_CLOCK": 1980, "DCGM_FI_DEV_XID_ERRORS": 0,
    }.items()
)  # fmt: skip
STATIC = """\
  - job_name: here-{name}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
        labels: {{node: n1, exporter: {name}}}
"""


@dataclass
class Watched:
    """The service, Prometheus, Slurm and the job that trains.

    Attributes
    ----------
    root : Path
        The data root that is watched.
    job : str
        Slurm id of the training.
    """

    slurm: Slurm
    root: Path
    port: int
    prometheus: prometheus_run.Prometheus
    job: str = ""
    exporter: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        """Of the exporter."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> httpx.Response:
        """Ask the exporter."""
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=10)

    def start_exporter(self) -> None:
        """Start ``sunpipe monitor serve``; wait until it answers."""
        argv = ["-m", "sunpipe", "monitor", "serve", "--port", str(self.port), "--interval", "0.5"]
        with open(self.root / "exporter.log", "ab") as out:
            self.exporter = subprocess.Popen(
                [sys.executable, *argv], cwd=REPO, stdout=out, stderr=out,
                env={**self.slurm.env, "SUNPIPE_ROOT": str(self.root)},
            )  # fmt: skip

        def answers() -> bool:
            try:
                return self.get("/metrics").status_code == 200
            except httpx.HTTPError:
                return False

        self.until("the exporter", answers, 30)

    def stop_exporter(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        assert self.exporter is not None
        self.exporter.send_signal(how)
        return self.exporter.wait(10)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Ask Prometheus."""
        return self.prometheus.query(expression)

    def value(self, expression: str) -> float:
        """The one value of an expression."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression}: {found}"
        return found[0][1]

    def learns(self) -> bool:
        """Whether the training has shown itself; fails when its job has ended."""
        state = self.slurm.show(self.job)["JobState"]
        log = self.root / "log.txt"
        assert state in ("PENDING", "RUNNING"), log.read_text()[-2000:]
        return bool(self.query("sunpipe_train_tick_seconds"))

    def until(self, what: str, ready: Callable[[], object], patience: float = 120.0) -> float:
        """Wait for a condition; the seconds that it took."""
        began = time.monotonic()
        while not ready():
            waited = time.monotonic() - began
            assert waited < patience, f"{what}: not within {patience} s"
            time.sleep(0.2)
        return time.monotonic() - began

    def until_fires(self, alert: str, patience: float = 120.0) -> dict[str, str]:
        """Wait until an alert fires; its labels."""
        self.until(f"alert {alert}", lambda: alert in self.prometheus.firing(), patience)
        return dict(self.prometheus.firing()[alert][0])


@contextmanager
def _dcgm() -> Iterator[int]:
    """Serve `DCGM` as dcgm-exporter would; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(DCGM.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _node_exporter(log: Path) -> Iterator[int]:
    """Run the real node exporter of this machine; yields the port."""
    port = free_port()
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [need("prometheus-node-exporter"), f"--web.listen-address=127.0.0.1:{port}"],
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def watch_folder(folder: Path, port: int, more: str) -> None:
    """Configuration and rules with short times, and further scrape jobs."""
    texts = rule_files(f"127.0.0.1:{port}", interval=1.0, scale=SCALE)
    texts["prometheus.yml"] += more
    write_rules(folder, texts)


@contextmanager
def watching(slurm: Slurm, tiny_root: Path, folder: Path) -> Iterator[Watched]:
    """A running training on a real Slurm, watched by a real Prometheus, in an empty folder."""
    need("prometheus")
    root, port = folder / "root", free_port()
    shutil.copytree(tiny_root, root)
    index = root / "index" / "tiny"
    index.mkdir(parents=True)
    (index / "index.json").write_text(json.dumps({"count": 1234}))
    with ExitStack() as stack:
        ports = {"node": stack.enter_context(_node_exporter(folder / "node.log")),
                 "dcgm": stack.enter_context(_dcgm())}  # fmt: skip
        more = "".join(STATIC.format(name=name, port=port) for name, port in ports.items())
        watch_folder(folder / "prometheus", port, more)
        prometheus = stack.enter_context(prometheus_run.running(folder / "prometheus"))
        found = Watched(slurm, root, port, prometheus)
        found.job = slurm.sbatch(*SMALL, *TRAINING, root=root)
        found.start_exporter()
        try:
            found.until("the first tick", found.learns, 400)
            yield found
        finally:
            slurm.run("scancel", "--signal=CONT", found.job)
            slurm.run("scancel", found.job)
            if found.exporter is not None and found.exporter.poll() is None:
                found.stop_exporter()
