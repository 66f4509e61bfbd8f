"""Weights & Biases, offline: a folder that ``wandb sync`` sends when its owner wants to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sunpipe.files import digest, read_json
from sunpipe.train.sinks import Row, numbers


def run_id(folder: Path) -> str:
    """The same for all starts of a run, another for any other run."""
    about = read_json(folder / "provenance.json")
    return f"{folder.name[:40]}-{digest([folder.name, about])[:12]}"


class WandbSink:
    """One offline run of W&B in ``<run>/wandb``; no network, no console, no host name.

    W&B's own ``logs/`` hold paths of this machine; ``wandb sync`` does not need them.

    What an earlier start wrote there is replaced. Send it when the run is done, or at
    rest: ``wandb sync <run>/wandb/offline-run-*``.
    """

    def __init__(self, folder: Path, project: str, config: dict[str, Any]) -> None:
        import wandb

        shutil.rmtree(folder / "wandb", ignore_errors=True)
        self._wandb = wandb
        self.run = wandb.init(
            project=project, name=folder.name, id=run_id(folder), dir=str(folder), mode="offline",
            config=config, reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False,
                disable_job_creation=True, x_disable_stats=True, x_disable_meta=True,
                x_disable_machine_info=True, x_save_requirements=False,
                host="hidden",
            ),
        )  # fmt: skip

    def add(self, row: Row) -> None:
        """Numbers at their image count."""
        self.run.log(numbers(row), step=int(row["nimg"]))

    def image(self, nimg: int, path: Path) -> None:
        """A grid at its image count."""
        self.run.log({"generated": self._wandb.Image(str(path))}, step=nimg)

    def close(self) -> None:
        """Write it to the end."""
        self.run.finish()
