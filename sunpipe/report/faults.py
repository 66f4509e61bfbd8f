"""What got in the way of a run: restarts, requeues, warnings, hangs, steps left out."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np

from sunpipe.report.cost import RESUMED, finite, read_log, tick_hours
from sunpipe.report.folders import portable
from sunpipe.report.runfolder import RunFolder

SHOWN = 12  # lines of a table
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?")
PAUSE_S = 120.0  # shorter gaps are start-ups and checkpoints


def pauses(run: RunFolder) -> list[dict[str, Any]]:
    """Gaps between two ticks in which no image was shown: at which kimg, for how long.

    A gap is the time between two ticks' ends less the length of the second; those below
    two minutes (and a tenth of the tick) are start-ups and checkpoints.
    """
    rows = run.stats
    ends = np.array([finite(row.get("time")) for row in rows])
    seconds = 3600 * tick_hours(rows)
    found = []
    for place in range(1, len(rows)):
        idle = ends[place] - ends[place - 1] - seconds[place]
        if np.isfinite(idle) and idle > max(PAUSE_S, 0.1 * seconds[place]):
            found.append({"kimg": rows[place - 1]["kimg"], "seconds": float(idle)})
    return found


def warnings(log: str) -> list[dict[str, Any]]:
    """Warnings of a log by kind, the most frequent first; numbers in them do not matter."""
    lines = [line.removeprefix("warning: ") for line in log.splitlines()
             if line.startswith("warning: ")]  # fmt: skip
    kinds = Counter(NUMBER.sub("#", line) for line in lines)
    last = {NUMBER.sub("#", line): line for line in lines}
    return [{"count": many, "last": last[what]} for what, many in kinds.most_common(SHOWN)]


def lifetime_h(run: RunFolder) -> float | None:
    """Hours from the run's creation to its last tick; None where either is not told."""
    begun, ended = run.provenance.get("time"), finite(run.stats[-1].get("time"))
    try:
        start = datetime.fromisoformat(str(begun)).timestamp()
    except ValueError:
        return None
    return (ended - start) / 3600 if np.isfinite(ended) and ended > start else None


def count(value: Any) -> int | None:
    """A whole number of a status, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def faults(run: RunFolder) -> dict[str, Any]:
    """Interruptions of a run, from its status, log and ticks.

    Returns
    -------
    dict
        starts, continued (how often it went on from a checkpoint), requeues and nonfinite
        (int or None: not told), skipped (steps left out, of the ticks), reason, hangs (file
        names), warnings, pauses, lifetime_h; no text names the data root.
    """
    log, status = portable(run, read_log(run)), run.status
    skipped = sum(value for row in run.stats
                  if np.isfinite(value := finite(row.get("skipped"))))  # fmt: skip
    return {
        "state": str(status.get("state", "unknown")),
        "continued": len(RESUMED.findall(log)),
        "requeues": count(status.get("requeues")),
        "restart": count(status.get("restart")),
        "nonfinite": count(status.get("nonfinite")),
        "skipped": skipped,
        "reason": portable(run, str(status["reason"])) if status.get("reason") else None,
        "signal": str(status["signal"]) if status.get("signal") else None,
        "hangs": sorted(path.name for path in run.folder.glob("hang-*.txt")),
        "warnings": warnings(log),
        "pauses": pauses(run),
        "lifetime_h": lifetime_h(run),
    }
