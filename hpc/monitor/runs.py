"""Metrics of trainings, from their run folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc.monitor.faults import Faults
from hpc.monitor.names import RUNS_SHOWN
from hpc.monitor.rows import (
    distances,
    eta,
    number,
    observations,
    section,
    state_samples,
    target_kimg,
    unix,
)
from hpc.monitor.samples import Sample, sample
from hpc.monitor.tail import Tail
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.paths import Layout

RUN_NAME = re.compile(r"\d{5}-.+")


def checkpoint_samples(run: str, folder: Path, status: Mapping[str, Any]) -> Iterator[Sample]:
    """Time and size of the newest complete checkpoint; runs of old versions tell the time only."""
    told = status.get("checkpoint")
    if isinstance(told, Mapping):
        when, size = unix(told.get("time")), number(told.get("bytes"))
    else:
        marks = [path.stat().st_mtime for path in (folder / "checkpoints").glob("kimg-*/COMPLETE")]
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

    def _info(self, config: Mapping[str, Any], status: Mapping[str, Any]) -> Sample:
        data, train = section(config, "data"), section(config, "train")
        git = self._json("provenance.json").get("git") or ""
        name = self.folder.name
        stage = status.get("stage") or ("ssl" if "ssl" in config else "train")
        return sample(
            "sunpipe_train_info", 1, run=name, name=config.get("name", name[6:]), stage=stage,
            dataset=data.get("dataset") or data.get("name") or "",
            resolution=data.get("resolution", ""),
            loss=train.get("loss") or section(config, "ssl").get("method", ""),
            world=status.get("world") or "", slurm_job=status.get("job") or "",
            git=str(git)[:12] + "+dirty" * str(git).endswith("+dirty"),
        )  # fmt: skip

    def read(self) -> list[Sample]:
        """All samples of the run.

        Raises
        ------
        DataError, OSError
            A file of it is damaged or cannot be read.
        """
        run, config, status = self.folder.name, self._json("config.json"), self.status()
        rows = self._stats.look()
        found = [self._info(config, status), *state_samples(run, status, config)]
        found += [*observations(run, rows), *checkpoint_samples(run, self.folder, status)]
        left = eta(rows, target_kimg(config, status))
        if left is not None and status.get("state") == "running":
            found.append(sample("sunpipe_train_eta_seconds", left, run=run))
        for path in sorted(self.folder.glob("metric-*.jsonl")):
            tail = self._tails.setdefault(path.name, Tail(path))
            for row in tail.look()[-1:]:
                found += distances(run, row)
        return found


class Runs:
    """The run folders of a data root that are shown: running ones, then the newest."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._faults = Faults("runs")
        self._runs: dict[str, RunFolder] = {}

    def _folders(self) -> list[RunFolder]:
        try:
            with os.scandir(self.layout.runs) as entries:
                names = {
                    entry.name
                    for entry in entries
                    if RUN_NAME.fullmatch(entry.name) and entry.is_dir()
                }
        except FileNotFoundError:
            names = set()
        self._runs = {name: self._runs.get(name) or RunFolder(self.layout.runs / name)
                      for name in names}  # fmt: skip

        def rank(one: RunFolder) -> tuple[bool, float]:
            path = one.folder / "status.json"
            try:
                running = one.status().get("state") == "running"
                return running, path.stat().st_mtime
            except (DataError, OSError):
                return False, 0.0

        return sorted(self._runs.values(), key=rank, reverse=True)[:RUNS_SHOWN]

    def read(self) -> list[Sample]:
        """Samples of all runs that are shown; one that cannot be read costs only itself."""
        found: list[Sample] = []
        self._faults.begin()
        for run in self._folders():
            with self._faults.of(run.folder.name):
                found += run.read()
        return [*found, self._faults.sample()]
