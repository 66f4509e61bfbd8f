"""Plan against actual: ``plan.json`` of a run beside what its ticks say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sunpipe.checkpoint import complete
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.report import numbers
from sunpipe.report.cost import finite, read_log, starts
from sunpipe.report.runfolder import RunFolder
from sunpipe.report.training import whole_ticks

FILE = "plan.json"
LABELS = {"memory_bytes": "Memory of a rank at its peak", "seconds_per_kimg": "Time per kimg",
          "checkpoint_bytes": "Size of a checkpoint"}  # fmt: skip


def read_plan(run: RunFolder) -> dict[str, Any] | None:
    """What was planned; None where no plan was kept.

    Raises
    ------
    DataError
        The file is damaged.
    """
    path = run.folder / FILE
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{FILE} holds no JSON object")
    return found


def last_start(run: RunFolder, plan: dict[str, Any] | None) -> float:
    """Images (kimg) at which the run went on last: ``plan.json`` was written anew there.

    The plan itself tells; for one of an older version the log does.
    """
    told = finite((plan or {}).get("from_nimg"))
    if math.isfinite(told):
        return told / 1000
    logged = starts(read_log(run))
    return logged[-1][0] if logged else 0.0


def actual(run: RunFolder, since: float) -> dict[str, float]:
    """Bytes of memory at the peak, seconds per kimg and bytes of a checkpoint; NaN: unknown.

    Of the ticks after `since` kimg, from `last_start`, as the plan is: the start before may
    have had other ranks. Of ranks the one that needs most counts. The speed is the median of
    the ticks.
    """
    ticks = [row for row in run.stats if row["kimg"] > since]
    peaks = [finite(row.get("peak_memory_bytes")) for row in ticks]
    for row in ticks:
        listed = row.get("rank_peak_memory_bytes")
        peaks += [finite(value) for value in listed] if isinstance(listed, list) else []
    speed = np.array([finite(row.get("sec_per_kimg")) for row in whole_ticks(run.stats)
                      if row["kimg"] > since])  # fmt: skip
    saved = complete(run.folder / "checkpoints")
    size = math.nan
    if saved:
        size = float(sum(path.stat().st_size for path in saved[-1].rglob("*")
                         if path.is_file()))  # fmt: skip
    return {
        "memory_bytes": max((peak for peak in peaks if math.isfinite(peak)), default=math.nan),
        "seconds_per_kimg": float(np.nanmedian(speed)) if np.isfinite(speed).any() else math.nan,
        "checkpoint_bytes": size,
    }


def _text(key: str, value: float) -> str:
    if not math.isfinite(value):
        return numbers.DASH
    return numbers.size(value) if key.endswith("bytes") else numbers.with_unit(value, "s")


def rows(plan: dict[str, Any], seen: dict[str, float]) -> list[dict[str, str]]:
    """One row per quantity that was planned: planned, actual, and by how much it was off."""
    table = []
    for key, label in LABELS.items():
        expected, real = finite(plan.get(key)), seen[key]
        off = expected / real - 1 if math.isfinite(expected) and real > 0 else math.nan
        if math.isfinite(expected) or math.isfinite(real):
            table.append({"label": label, "planned": _text(key, expected),
                          "actual": _text(key, real),
                          "off": ("+" if off >= 5e-4 else "") + numbers.percent(off)
                          if math.isfinite(off) else numbers.DASH})  # fmt: skip
    return table


def planned(run: RunFolder) -> dict[str, Any]:
    """What the page shows of the plan: table, parts of the memory, GPU type.

    Returns
    -------
    dict
        ``kept``: whether the run has a plan; ``rows``; ``parts``: (name, size) of the planned
        memory; ``gpu``; ``since``: kimg of the start that was planned, and ``ticks`` since.
    """
    plan = read_plan(run)
    since = last_start(run, plan)
    table = rows(plan or {}, actual(run, since))
    listed = (plan or {}).get("parts")
    pairs = listed.items() if isinstance(listed, dict) else listed or []
    parts = []
    for pair in pairs if not isinstance(pairs, str) else []:
        if isinstance(pair, list | tuple) and len(pair) == 2 and math.isfinite(finite(pair[1])):
            parts.append((str(pair[0]), numbers.size(float(pair[1]))))
    gpu = (plan or {}).get("gpu")
    return {"kept": plan is not None, "rows": table, "parts": parts,
            "gpu": str(gpu) if gpu else None, "since": since,
            "ticks": sum(row["kimg"] > since for row in run.stats)}  # fmt: skip
