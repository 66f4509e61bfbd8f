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
from typing import Any

from sunpipe.train.sinks import Row, numbers

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


class MlflowSink:
    """One run in the file store ``<run>/mlflow``; what an earlier start wrote is replaced."""

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        os.environ.setdefault(ALLOW, "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        store = folder.absolute() / "mlflow"
        for left in store.glob("[0-9]*"):  # not the folder: MLflow keeps it open in a process
            shutil.rmtree(left)
        self._metric = Metric
        self.client = MlflowClient(tracking_uri=store.as_uri())
        experiment = self.client.create_experiment(project)
        self.id = self.client.create_run(experiment, run_name=folder.name).info.run_id
        parameters = [Param(key, value) for key, value in flat(config).items()]
        for first in range(0, len(parameters), 100):  # as many as one call takes
            self.client.log_batch(self.id, params=parameters[first : first + 100])

    def add(self, row: Row) -> None:
        """Numbers at their image count."""
        stamp = int(1000 * row.get("time", time.time()))
        self.client.log_batch(self.id, metrics=[
            self._metric(key, value, stamp, int(row["nimg"]))
            for key, value in numbers(row).items()
        ])  # fmt: skip

    def image(self, nimg: int, path: Path) -> None:
        """A copy of the grid."""
        self.client.log_artifact(self.id, str(path), "images")

    def close(self) -> None:
        """Mark the run as ended."""
        self.client.set_terminated(self.id)
