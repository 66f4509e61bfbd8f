"""Metrics of trainings, from their run folders."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc.monitor.faults import ODD, Faults, check_root
from hpc.monitor.lost import state_now
from hpc.monitor.names import RUNS_SHOWN
from hpc.monitor.rows import (
    METRICS_SHOWN,
    distances,
    eta,
    number,
    observations,
    section,
    state_samples,
    target_kimg,
    tick_seconds,
    unix,
)
from hpc.monitor.samples import Sample, sample
from hpc.monitor.tail import Tail
from hpc.status.files import modified
from sunpipe.checkpoint import complete
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.paths import Layout

RUN_NAME = re.compile(r"\d{5}-.+")
Jobs = Mapping[str, str]  # states of the jobs that have not ended


def checkpoint_samples(run: str, folder: Path, status: Mapping[str, Any]) -> Iterator[Sample]:
    """Time and size of the newest complete checkpoint; runs of old versions tell the time only."""
    told = status.get("checkpoint")
    if isinstance(told, Mapping):
        when, size = unix(told.get("time")), number(told.get("bytes"))
    else:
        marks = [(path / "COMPLETE").stat().st_mtime for path in complete(folder / "checkpoints")]
        when, size = max(marks, default=None), None
    if when is not None:
        yield sample("sunpipe_train_last_checkpoint_timestamp_seconds", when, run=run)
    if size is not None:
        yield sample("sunpipe_train_checkpoint_bytes", size, run=run)


class RunFolder:
    """One run, read as it grows; files that did not change are not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stats = Tail(folder / "stats.jsonl")
        self._tails: dict[str, Tail] = {}
        self._known: dict[str, tuple[tuple[int, int, int], Any]] = {}

    def _json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; empty when there is none (yet)."""
        path = self.folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            return {}
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._known.get(name, (None, None))[0] != mark:
            found = read_json(path)
            if not isinstance(found, dict):
                raise DataError(f"{path} is not a JSON object")
            self._known[name] = (mark, found)
        content: dict[str, Any] = self._known[name][1]
        return content

    def status(self) -> dict[str, Any]:
        """``status.json``."""
        return self._json("status.json")

    def _stage(self) -> str:
        return str(self.status().get("stage") or ("ssl" if "ssl" in self._json("config.json")
                                                  else "train"))  # fmt: skip

    def state(self, jobs: Jobs | None) -> Any:
        """What its state counts as, see `hpc.monitor.lost`."""
        status = self.status()
        if status.get("state") != "running":
            return status.get("state")
        changed = max(
            modified(self.folder / name) or 0.0 for name in ("status.json", "stats.jsonl")
        )
        rows = self._stats.look()
        tick = tick_seconds(rows) if rows else None
        return state_now(self.folder, self._stage(), status, jobs, time.time() - changed, tick)

    def _info(self, config: Mapping[str, Any], status: Mapping[str, Any]) -> Sample:
        data, train = section(config, "data"), section(config, "train")
        git = self._json("provenance.json").get("git") or ""
        name = self.folder.name
        return sample(
            "sunpipe_train_info", 1, run=name, name=config.get("name", name[6:]),
            stage=self._stage(),
            dataset=data.get("dataset") or data.get("name") or "",
            resolution=data.get("resolution", ""),
            loss=train.get("loss") or section(config, "ssl").get("method", ""),
            world=status.get("world") or "", slurm_job=status.get("job") or "",
            git=str(git)[:12] + "+dirty" * str(git).endswith("+dirty"),
        )  # fmt: skip

    def read(self, jobs: Jobs | None = None) -> list[Sample]:
        """All samples of the run.

        Parameters
        ----------
        jobs : mapping of str to str, or None
            State of each job that has not ended; None where Slurm does not tell.

        Raises
        ------
        DataError, OSError
            A file of it is damaged or cannot be read.
        """
        run, config, status = self.folder.name, self._json("config.json"), self.status()
        state, rows = self.state(jobs), self._stats.look()
        found = [self._info(config, status), *state_samples(run, state, status, config)]
        found += [*observations(run, rows), *checkpoint_samples(run, self.folder, status)]
        left = eta(rows, target_kimg(config, status))
        if left is not None and state == "running":
            found.append(sample("sunpipe_train_eta_seconds", left, run=run))
        return [*found, *itertools.islice(self._distances(), METRICS_SHOWN)]

    def _distances(self) -> Iterator[Sample]:
        for path in sorted(self.folder.glob("metric-*.jsonl")):
            tail = self._tails.setdefault(path.name, Tail(path))
            for row in tail.look()[-1:]:
                yield from distances(self.folder.name, row)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it may be a run; a link in a circle is one that cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return True


class Runs:
    """The run folders of a data root that are shown: running ones, then the newest.

    Parameters
    ----------
    jobs : callable
        Gives the states of the jobs that have not ended; None where Slurm does not tell.
    """

    def __init__(self, layout: Layout, jobs: Callable[[], Jobs | None] = lambda: None) -> None:
        self.layout = layout
        self._jobs = jobs
        self._faults = Faults("runs")
        self._runs: dict[str, RunFolder] = {}

    def _folders(self, jobs: Jobs | None) -> list[RunFolder]:
        check_root(self.layout)
        try:
            with os.scandir(self.layout.runs) as entries:
                names = {
                    entry.name
                    for entry in entries
                    if RUN_NAME.fullmatch(entry.name) and _is_folder(entry)
                }
        except FileNotFoundError:
            if self._runs:  # as when the root is a mount point, and its file system is gone
                raise DataError(f"{self.layout.runs} was there, and is gone") from None
            names = set()
        self._runs = {name: self._runs.get(name) or RunFolder(self.layout.runs / name)
                      for name in names}  # fmt: skip

        def rank(one: RunFolder) -> tuple[bool, float]:
            path = one.folder / "status.json"
            try:
                return one.state(jobs) == "running", path.stat().st_mtime
            except (DataError, OSError, *ODD):  # reading it will say so
                return False, 0.0

        return sorted(self._runs.values(), key=rank, reverse=True)[:RUNS_SHOWN]

    def read(self) -> list[Sample]:
        """Samples of all runs that are shown; one that cannot be read costs only itself."""
        found: list[Sample] = []
        self._faults.begin()
        jobs = self._jobs()
        for run in self._folders(jobs):
            with self._faults.of(run.folder.name):
                found += run.read(jobs)
        return [*found, self._faults.sample()]
