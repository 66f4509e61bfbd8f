"""``[track]``: further places that a training shows itself in, beside its own files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sunpipe.setting_types import STRICT

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


@dataclass(frozen=True, config=STRICT)
class TrackSettings:
    """Optional sinks of trainings; TensorBoard and ``stats.jsonl`` are always written.

    `sinks` are written into the run's folder without a network
    (``wandb sync`` and ``mlflow ui`` read them). `project` is W&B's project and
    MLflow's experiment.
    """

    sinks: tuple[Literal["wandb", "mlflow"], ...] = ()
    project: Label = "sunpipe"
