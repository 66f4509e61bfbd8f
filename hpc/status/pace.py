"""The pace of a run: of its last whole ticks, as a stop writes a tick of a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, median_high
from typing import Any

from hpc.status.files import number

SHORT = 0.5  # of the usual images: a shorter tick is mostly start-up and evaluation
TICKS = 5  # newest whole ticks whose median counts
SEEN = 10  # newest rows that are looked at


def whole_ticks(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The newest ticks, at most five, that are not much shorter than usual.

    Parameters
    ----------
    rows : sequence
        Rows of ``stats.jsonl`` by time; ``nimg`` counts the images since the start.
    """
    counted = [
        (row, count) for row in rows[-SEEN:] if (count := number(row.get("nimg"))) is not None
    ]
    before = [0.0, *(count for _, count in counted)]
    shown = [count - last for (_, count), last in zip(counted, before, strict=False)]
    forward = [images for images in shown if images > 0]  # a continuation may begin further back
    if not forward:
        return []
    least = SHORT * median_high(forward)
    return [row for (row, _), images in zip(counted, shown, strict=True) if images >= least][
        -TICKS:
    ]


def usual_pace(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Median seconds per thousand images of the last whole ticks; None where no row tells."""
    told = [pace for row in whole_ticks(rows) if (pace := number(row.get("sec_per_kimg")))
            is not None]  # fmt: skip
    return median(told) if told else None


def usual_tick(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds of the longest of the last whole ticks; None where no row tells."""
    return max((tick for row in whole_ticks(rows) if (tick := number(row.get("tick_s")))
                is not None), default=None)  # fmt: skip
