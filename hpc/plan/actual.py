"""What a run was expected to take, beside what it took."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.plan.storage import folder_bytes
from sunpipe.checkpoint import complete
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.run import read_stats

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Row:
    """One quantity; None where it was not predicted or not seen."""

    what: str
    unit: str
    predicted: float | None
    actual: float | None

    @property
    def ratio(self) -> float | None:
        """Predicted over actual."""
        return self.predicted / self.actual if self.predicted and self.actual else None

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {**vars(self), "predicted_over_actual": self.ratio}


def compare(run: Path, cpu_pace: float | None = None) -> list[Row]:
    """Rows of a run folder: memory, pace, checkpoint, energy.

    What was predicted is its ``plan.json``, written anew at every start; a run of an
    older version has none. Memory and pace, the median tick, are of the ticks since that
    start: the one before may have had other ranks. Energy is the run's total in
    ``status.json``, repeated work included; it is not predicted.

    Parameters
    ----------
    cpu_pace : float, optional
        Seconds per kimg predicted for this CPU as it is now: a run on a CPU has no such
        number of its own, because it needs measurements. Its row says "predicted now".

    Raises
    ------
    DataError
        A file of the run cannot be read.
    """
    plan = _planned(run)
    since = plan.get("from_nimg") or 0
    rows = [row for row in read_stats(run) if row["nimg"] > since]
    peaks = [peak for row in rows for peak in _peaks(row)]
    paces = [row["sec_per_kimg"] for row in rows if row.get("sec_per_kimg")]
    energy = _energy(run)
    pace = statistics.median(paces) if paces else None
    expected, label = plan.get("seconds_per_kimg"), "seconds per kimg"
    if expected is None and plan.get("device") == "cpu" and cpu_pace is not None:
        expected, label = cpu_pace, "seconds per kimg (predicted now)"
    return [
        Row("memory of a rank", "bytes", plan.get("memory_bytes"), max(peaks, default=None)),
        Row(label, "s", expected, pace),
        Row("checkpoint", "bytes", plan.get("checkpoint_bytes"), _newest_checkpoint(run)),
        Row("energy", "kWh", None, None if energy is None else energy / JOULES_PER_KWH),
    ]


def _planned(run: Path) -> dict[str, Any]:
    """``plan.json`` of a run; empty where there is none."""
    path = run / "plan.json"
    if not path.exists():
        return {}
    plan = read_json(path)
    if not isinstance(plan, dict):
        raise DataError(f"{path} holds no plan")
    for key in ("from_nimg", "memory_bytes", "seconds_per_kimg", "checkpoint_bytes"):
        if not isinstance(plan.get(key), int | float | None):
            raise DataError(f"{path}: {key} is no number")
    return plan


def _energy(run: Path) -> float | None:
    """Joules of the whole run; None where no device told them."""
    path = run / "status.json"
    status = read_json(path) if path.exists() else {}
    joules = status.get("energy_j") if isinstance(status, dict) else None
    return float(joules) if isinstance(joules, int | float) else None


def _peaks(row: dict[str, Any]) -> list[float]:
    """Peak memory of every rank, of the first one in rows of older versions."""
    ranks = row.get("rank_peak_memory_bytes") or [row.get("peak_memory_bytes")]
    return [peak for peak in ranks if peak]


def _newest_checkpoint(run: Path) -> int | None:
    saved = complete(run / "checkpoints")
    return folder_bytes(saved[-1]) if saved else None
