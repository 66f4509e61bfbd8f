"""A real Prometheus on this machine: started in a folder, asked, and stopped again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc.machine import free_ports
from hpc.monitor.preview_source import Client
from hpc.monitor.rules import CONFIG, INSTALL
from sunpipe.errors import DataError

START_S = 30.0
STOP_S = 10.0


@dataclass
class Prometheus:
    """A running Prometheus; `url` is where it answers."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    client: Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.client = Client(self.url)

    def get(self, path: str, **params: str) -> Any:
        """What its HTTP API answers to ``/api/v1/<path>``.

        Raises
        ------
        DataError
            It does not answer, or refuses; its own words are in the message.
        """
        return self.client.ask(path, params)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an expression now; a scalar has no labels."""
        return [(dict(each.labels), each.samples[-1][1])
                for each in self.client.newest(expression)]  # fmt: skip

    def firing(self) -> dict[str, list[Mapping[str, str]]]:
        """Labels of the alerts that fire now, by name."""
        found: dict[str, list[Mapping[str, str]]] = {}
        for alert in self.get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to one that does not end; only this process."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.client.close()


def start(folder: Path, port: int = 0) -> Prometheus:
    """Start Prometheus on the configuration in `folder`; wait until it answers.

    Parameters
    ----------
    folder : Path
        Holds ``prometheus.yml``; gets ``data/`` and ``prometheus.log``.
    port : int
        On the loopback interface; 0 takes a free one.

    Raises
    ------
    DataError
        It is not installed, or does not come up; the end of its log is in the message.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise DataError(f"prometheus is not installed: {INSTALL}")
    listen = f"127.0.0.1:{port or free_ports(1)[0]}"
    log = folder / "prometheus.log"
    argv = [
        program, f"--config.file={CONFIG}", "--storage.tsdb.path=data",
        f"--web.listen-address={listen}", "--log.level=warn",
    ]  # fmt: skip
    with open(log, "ab") as out:
        process = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
                                   stderr=out, start_new_session=True)  # fmt: skip
    found = Prometheus(f"http://{listen}", process, log)
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        if found.client.ready():
            return found
        time.sleep(0.05)
    found.stop()
    tail = log.read_text(errors="replace").strip().splitlines()[-3:]
    raise DataError(f"Prometheus did not come up: {' | '.join(tail) or 'it said nothing'}")


@contextmanager
def running(folder: Path, port: int = 0) -> Iterator[Prometheus]:
    """`start`, and stop it when the block ends."""
    found = start(folder, port)
    try:
        yield found
    finally:
        found.stop()
