"""The quick start: exporter and Prometheus with the rules on this machine, and a page."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from hpc.monitor import prometheus_run
from hpc.monitor.preview import preview
from hpc.monitor.prometheus_run import Prometheus
from hpc.monitor.rules import rule_files, write_rules
from hpc.monitor.service import Monitor, serving, until_told
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.stage import log

SCRAPE_S = 5.0
PAGE_EVERY_S = 30.0
PAGE = "dashboards.html"
FIRST_S = 60.0  # until the first scrape and the first evaluation of the rules must be in


def _wait(prometheus: Prometheus, told: Event) -> None:
    """Wait for the first scrape, and the next time that the rules look at it."""
    end = time.monotonic() + FIRST_S
    while not told.wait(0.2):
        if prometheus.query('up{job="sunpipe"} == 1') and prometheus.query(
            "sunpipe_disk_free_bytes"
        ):
            return
        if time.monotonic() > end:
            raise DataError(f"Prometheus has no series of sunpipe; see {prometheus.log}")


def demo(
    layout: Layout, folder: Path | None = None, port: int = 0, prometheus_port: int = 0,
    scale: float = 1.0, once: bool = False,
) -> Path:  # fmt: skip
    """Watch a data root until ctrl-C or SIGTERM; both programs end with this one.

    Parameters
    ----------
    folder : Path, optional
        Keeps configuration, history and page; a temporary one that stays otherwise.
    port, prometheus_port : int
        On the loopback interface; 0 takes free ones.
    scale : float
        Multiplies the times of the alerts.
    once : bool
        Write the page one time and end.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        There is no data root, or Prometheus is missing or does not come up.
    """
    if not layout.root.is_dir():
        raise DataError(f"{layout.root} does not exist; run make demo, or set SUNPIPE_ROOT")
    folder = folder or Path(tempfile.mkdtemp(prefix="sunpipe-monitor-"))
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    with ExitStack() as stack:
        told = stack.enter_context(until_told())
        server = stack.enter_context(serving(Monitor(layout, SCRAPE_S), port=port))
        exporter = server.url.removeprefix("http://")
        write_rules(folder, rule_files(exporter, SCRAPE_S, scale), force=True)
        prometheus = stack.enter_context(prometheus_run.running(folder, prometheus_port))
        _wait(prometheus, told)
        for line in (
            f"watching   {layout.root}",
            f"metrics    {server.url}/metrics",
            f"Prometheus {prometheus.url}/alerts",
        ):
            log(line)
        first = True
        while not told.is_set():
            preview(prometheus.url, page, seconds=3600.0)
            if first:
                log(f"dashboards file://{page} (drawn again every {PAGE_EVERY_S:g} s)")
                log("ctrl-C ends both")
                first = False
            if once:
                break
            told.wait(PAGE_EVERY_S)
            if prometheus.process.poll() is not None:
                raise DataError(f"Prometheus ended; see {prometheus.log}")
    return page
