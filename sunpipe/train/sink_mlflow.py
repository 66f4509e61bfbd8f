"""MLflow, as files in the run folder: ``mlflow ui --backend-store-uri <run>/mlflow`` shows them.

MLflow 3 keeps its store of files for those who say that they want it; its store in
SQLite needs packages that ``mlflow-skinny`` does not have, and locks that network file
systems may not have.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sunpipe.train.sinks import Row, numbers

if TYPE_CHECKING:
    from mlflow.entities import Run

ALLOW = "MLFLOW_ALLOW_FILE_STORE"
LONGEST = 500  # letters of a parameter that every version takes


def flat(config: dict[str, Any], before: str = "") -> dict[str, str]:
    """Dotted keys and their values as text."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = str(value)[:LONGEST]
    return found


def steps_kept(file: Path, nimg: int) -> set[int]:
    """Steps of a metric's points up to `nimg`; what follows them is cut off the file.

    A line is ``time value step``. Points stand in the order of their steps, so that cut
    are those that a resume makes again, and a line that a kill has torn.
    """
    kept: set[int] = set()
    last, end = -1, 0
    data = file.read_bytes()
    for line in data.splitlines(keepends=True):
        words = line.split()
        if len(words) != 3 or not line.endswith(b"\n") or not words[2].isdigit():
            break
        if not last < int(words[2]) <= nimg:
            break
        last, end = int(words[2]), end + len(line)
        kept.add(last)
    if end < len(data):
        os.truncate(file, end)
    return kept


class MlflowSink:
    """One run in the file store ``<run>/mlflow``: a later start adds what it lacks.

    It is written anew where the configuration is another, the run folder was moved
    (MLflow notes where artifacts lie), or the store cannot be read.

    Parameters
    ----------
    nimg : int
        Images shown so far: what is known beyond is out of date.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any], nimg: int) -> None:
        os.environ.setdefault(ALLOW, "true")
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._store = folder.absolute() / "mlflow"
        self._known: dict[str, set[int]] = {}
        self.client = MlflowClient(tracking_uri=self._store.as_uri())
        parameters = flat(config)
        before = self._before(project, folder.name, parameters)
        if before is not None:
            self.id, here = before.info.run_id, self._store / before.info.experiment_id
            self.client.update_run(self.id, status="RUNNING")
            self._images = here / self.id / "artifacts/images"
            points = here / self.id / "metrics"
            self._known = {file.relative_to(points).as_posix(): steps_kept(file, nimg)
                           for file in points.rglob("*") if file.is_file()}  # fmt: skip
            return
        for left in self._store.glob("[0-9]*"):  # not the folder: MLflow keeps it open in a process
            shutil.rmtree(left)
        experiment = self.client.create_experiment(project)
        self.id = self.client.create_run(experiment, run_name=folder.name).info.run_id
        self._images = self._store / experiment / self.id / "artifacts/images"
        told = self._parameters(parameters)
        for first in range(0, len(told), 100):  # as many as one call takes
            self.client.log_batch(self.id, params=told[first : first + 100])

    @staticmethod
    def _parameters(parameters: dict[str, str]) -> list[Any]:
        from mlflow.entities import Param

        return [Param(key, value) for key, value in parameters.items()]

    def _before(self, project: str, name: str, parameters: dict[str, str]) -> Run | None:
        """The one run of an earlier start, if it is whole, still here and made of the same."""
        try:
            experiment = self.client.get_experiment_by_name(project)
            if experiment is None:
                return None
            (run,) = self.client.search_runs([experiment.experiment_id])
        except Exception:  # torn by a kill, or of another version: written anew
            return None
        here = self._store / experiment.experiment_id / run.info.run_id
        same = run.info.run_name == name and run.data.params == parameters
        return run if same and run.info.artifact_uri == (here / "artifacts").as_uri() else None

    def add(self, row: Row) -> None:
        """Numbers at their image count, each once."""
        stamp, step = int(1000 * row.get("time", time.time())), int(row["nimg"])
        points = []
        for key, value in numbers(row).items():
            known = self._known.setdefault(key, set())
            if step not in known:
                known.add(step)
                points.append(self._metric(key, value, stamp, step))
        if points:
            self.client.log_batch(self.id, metrics=points)

    def image(self, nimg: int, path: Path) -> None:
        """A copy of the grid, unless it is there."""
        kept = self._images / path.name
        if not kept.exists() or kept.stat().st_size != path.stat().st_size:
            self.client.log_artifact(self.id, str(path), "images")

    def close(self) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.id)
