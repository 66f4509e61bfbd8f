"""Samples of one run from the rows and the status that it writes: pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from hpc.monitor.names import RANKS_SHOWN, TRAIN_STATES
from hpc.monitor.samples import Sample, sample

METRICS_SHOWN = 40  # of one run
# keys of stats.jsonl: (metric, label, value of the label)
OBSERVED = {
    "loss_G": ("sunpipe_train_loss", "net", "G"),
    "loss_D": ("sunpipe_train_loss", "net", "D"),
    "loss": ("sunpipe_train_loss", "net", "encoder"),
    "logits_real": ("sunpipe_train_logits", "of", "real"),
    "logits_fake": ("sunpipe_train_logits", "of", "fake"),
    "r1_penalty": ("sunpipe_train_penalty", "name", "r1"),
    "r2_penalty": ("sunpipe_train_penalty", "name", "r2"),
    "pl_penalty": ("sunpipe_train_penalty", "name", "pl"),
}
PLAIN = {
    "kimg": "sunpipe_train_kimg",
    "diversity": "sunpipe_train_diversity_ratio",
    "ada_p": "sunpipe_train_augment_probability",
    "sec_per_kimg": "sunpipe_train_seconds_per_kimg",
    "data_wait_s": "sunpipe_train_data_wait_seconds",
    "time": "sunpipe_train_last_tick_timestamp_seconds",
}
TOTALS = {
    "requeues": "sunpipe_train_requeues",
    "nonfinite": "sunpipe_train_nonfinite",
    "energy_j": "sunpipe_train_energy_joules",
}
ABOUT_A_ROW = ("nimg", "kimg", "images", "not_finite", "seconds", "time")


def number(value: Any) -> float | None:
    """A value of JSON as a float; None when it is no number, or one beyond all floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def unix(value: Any) -> float | None:
    """Seconds since 1970 of an ISO 8601 time or of a number."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    return number(value)


def per_rank(values: Any) -> dict[str, float]:
    """Values by rank; of more than `RANKS_SHOWN` ranks the least and the most."""
    if not isinstance(values, list):
        return {}
    known = {str(rank): value for rank, one in enumerate(values)
             if (value := number(one)) is not None}  # fmt: skip
    if len(known) <= RANKS_SHOWN:
        return known
    return {"min": min(known.values()), "max": max(known.values())}


def metric_labels(key: str) -> tuple[str, str]:
    """Name and feature of a distance: ``fd_random`` is ("fd", "random")."""
    for name in ("spectrum_db", "fd", "kid", "w1"):
        if key == name or key.startswith(f"{name}_"):
            return name, key[len(name) + 1 :]
    return key, ""


def observations(run: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Samples of the newest row of ``stats.jsonl``; the one before tells the tick's length.

    A loss that is there but null was not finite: it is served as NaN.
    """
    if not rows:
        return
    row = rows[-1]
    for key, (name, label, value) in OBSERVED.items():
        found = number(row.get(key))
        if found is None and key in row and key.startswith("loss"):
            found = math.nan
        if found is not None:
            yield sample(name, found, run=run, **{label: value})
    for key, name in PLAIN.items():
        if (found := number(row.get(key))) is not None:
            yield sample(name, found, run=run)
    if (level := number(row.get("collapse"))) is not None:
        yield sample("sunpipe_train_feature_spread_ratio", 1.0 - level, run=run)
    if (tick := tick_seconds(rows)) is not None:
        yield sample("sunpipe_train_tick_seconds", tick, run=run)
    for rank, seconds in per_rank(row.get("rank_work_s")).items():
        yield sample("sunpipe_train_rank_work_seconds", seconds, run=run, rank=rank)
    memory = per_rank(row.get("rank_peak_memory_bytes"))
    if not memory and (own := number(row.get("peak_memory_bytes"))) is not None:
        memory = {"0": own}  # older runs tell that of rank 0 only
    for rank, count in memory.items():
        yield sample("sunpipe_train_gpu_memory_peak_bytes", count, run=run, rank=rank)


def tick_seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Length of the last tick: as it says itself, else the time between the last two rows."""
    if (told := number(rows[-1].get("tick_s"))) is not None:
        return told
    if len(rows) < 2:
        return None
    last, before = number(rows[-1].get("time")), number(rows[-2].get("time"))
    if last is None or before is None or last < before:
        return None
    return last - before


def distances(run: str, row: Mapping[str, Any]) -> Iterator[Sample]:
    """Samples of a row of ``metric-*.jsonl``."""
    keys = [key for key in row if key not in ABOUT_A_ROW and re.fullmatch(r"\w{1,60}", key)]
    for key in keys:
        if (found := number(row[key])) is not None:
            name, feature = metric_labels(key)
            yield sample("sunpipe_train_metric", found, run=run, name=name, feature=feature)


def target_kimg(config: Mapping[str, Any], status: Mapping[str, Any]) -> float | None:
    """Thousands of images to be shown, as the run says or as it was asked for."""
    if (told := number(status.get("target"))) is not None:  # images, as nimg
        return told / 1000
    if (total := number(status.get("total"))) is not None:
        return total / 1000
    return number((section(config, "train") or section(config, "ssl")).get("kimg"))


def state_samples(run: str, state: Any, status: Mapping[str, Any], config: Mapping[str, Any]
                  ) -> Iterator[Sample]:  # fmt: skip
    """Samples of ``status.json``; `state` is what the run's state counts as."""
    for known in TRAIN_STATES:
        yield sample("sunpipe_train_state", state == known, run=run, state=known)
    for key, name in TOTALS.items():
        if (found := number(status.get(key))) is not None:
            yield sample(name, found, run=run)
    warnings = status.get("warnings")
    if isinstance(warnings, list):
        yield sample("sunpipe_train_warnings", len(warnings), run=run)
    if (target := target_kimg(config, status)) is not None:
        yield sample("sunpipe_train_target_kimg", target, run=run)
    if (started := unix(status.get("started"))) is not None:
        yield sample("sunpipe_train_started_timestamp_seconds", started, run=run)


def eta(rows: Sequence[Mapping[str, Any]], target: float | None) -> float | None:
    """Seconds left at the pace of the last tick."""
    if not rows or target is None:
        return None
    done, pace = number(rows[-1].get("kimg")), number(rows[-1].get("sec_per_kimg"))
    return None if done is None or pace is None else max(target - done, 0.0) * pace


def section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration; empty when it is not there."""
    found = content.get(name)
    return found if isinstance(found, Mapping) else {}
