"""The quick start: exporter and Prometheus with the rules on this machine, and a page."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from threading import Event

from hpc.monitor import prometheus_run
from hpc.monitor.preview import preview
from hpc.monitor.prometheus_run import Prometheus
from hpc.monitor.rules import (
    CONFIG,
    RULES,
    SHORTEST_S,
    longest_interval,
    rule_files,
    write_rules,
)
from hpc.monitor.service import Monitor, serving, until_told
from sunpipe.errors import DataError, UsageError
from sunpipe.lock import exclusive
from sunpipe.paths import Layout
from sunpipe.stage import log

SCRAPE_S = 5.0
PAGE_EVERY_S = 30.0
PAGE = "dashboards.html"
LOCK = ".demo.lock"
BACK_S = (60.0, 3600.0)  # that a page looks back, least and most
FIRST_S = 60.0  # until the first scrape and the first evaluation of the rules must be in
LATE_S = 0.5  # an evaluation may begin this much after the time for which it counts
OWN = "# Written anew by each sunpipe monitor demo; change nothing here.\n"


def _wait(prometheus: Prometheus, told: Event) -> None:
    """Wait for the first scrape, and the next time that all rules look at it."""
    end = time.monotonic() + FIRST_S
    scraped: float | None = None
    while not told.wait(0.2):
        if scraped is None:
            if prometheus.query("sunpipe_collector_success"):
                scraped = time.time() + LATE_S
        elif all(one > scraped for one in _looked(prometheus)):
            return
        if time.monotonic() > end:
            raise DataError(f"Prometheus has no series of sunpipe; see {prometheus.log}")


def _looked(prometheus: Prometheus) -> list[float]:
    """When each group of rules was evaluated last, in unix seconds."""
    groups = prometheus.get("rules")["groups"]
    return [datetime.fromisoformat(one["lastEvaluation"]).timestamp() for one in groups]


def _known_s(prometheus: Prometheus) -> float:
    """How far a page looks back: as far as samples go, so that the first curves can be seen."""
    least, most = BACK_S
    first = prometheus.query(f"min_over_time(timestamp(sunpipe_monitor_info)[{most:.0f}s:15s])")
    begun = min((value for _, value in first), default=time.time())
    return min(max(time.time() - begun, least), most)


def _own_folder(folder: Path | None) -> Path:
    """The folder to write to: a new one, or one that holds no configuration of a user.

    Raises
    ------
    UsageError
        There is one that the demo has not written.
    """
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="sunpipe-monitor-")).resolve()
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    config = folder / CONFIG
    if config.is_file():
        if not config.read_text(encoding="utf-8", errors="replace").startswith(OWN):
            raise UsageError(f"{config} is not of the demo; choose another --folder")
    elif found := [name for name in RULES if (folder / name).exists()]:
        raise UsageError(f"{folder / found[0]} is not of the demo; choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def demo(
    layout: Layout, folder: Path | None = None, port: int = 0, prometheus_port: int = 0,
    scale: float = 1.0, once: bool = False,
) -> Path | None:  # fmt: skip
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
    Path or None
        The page; None if told to end before the first one.

    Raises
    ------
    DataError
        There is no data root, another demo has the folder, or Prometheus is missing or does not
        come up.
    UsageError
        `folder` holds a configuration that is not the demo's.
    """
    if not layout.root.is_dir():
        raise DataError(f"{layout.root} does not exist; run make demo, or set SUNPIPE_ROOT")
    interval = max(min(SCRAPE_S, longest_interval(scale)), SHORTEST_S)
    folder = _own_folder(folder)
    page = folder / PAGE
    with ExitStack() as stack:
        # Debian's Prometheus takes no lock of its own: two would write into one history
        stack.enter_context(exclusive(folder / LOCK, f"keeping the history in {folder}"))
        told = stack.enter_context(until_told())
        server = stack.enter_context(serving(Monitor(layout, interval), port=port))
        texts = rule_files(server.url.removeprefix("http://"), interval, scale)
        write_rules(folder, {**texts, CONFIG: OWN + texts[CONFIG]}, force=True)
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
            preview(prometheus.url, page, seconds=_known_s(prometheus))
            if first:
                log(f"dashboards {page.as_uri()} (drawn again every {PAGE_EVERY_S:g} s)")
                log("ctrl-C ends both")
                first = False
            if once:
                break
            told.wait(PAGE_EVERY_S)
            if prometheus.process.poll() is not None:
                raise DataError(f"Prometheus ended; see {prometheus.log}")
    return None if first else page
