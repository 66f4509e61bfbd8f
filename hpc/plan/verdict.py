"""Does it fit: GPU memory, time limit, disk; and the smallest change that makes it fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from hpc.plan.target import Target
from sunpipe.settings import Config

TIGHT = 0.9  # of what may be taken: above it a plan is called tight
REQUEUES = 20  # above so many restarts by the time limit a plan is called tight
Word = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """One line of the answer.

    Attributes
    ----------
    about : {"memory", "time", "disk", "layout"}
    change : tuple of str
        Settings that would make it fit; empty where none are needed or known.
    """

    about: str
    word: Word
    text: str
    change: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {**vars(self), "change": list(self.change)}


def _word(share: float) -> Word:
    return "fits" if share <= TIGHT else "tight" if share <= 1 else "does not fit"


def memory_verdict(
    cfg: Config, resolution: int, channels: int, peak: int, place: Target
) -> Verdict:
    """Against the memory of the GPU."""
    from sunpipe.train.ledger import gib

    limit = place.memory_bytes
    if limit is None or place.gpu is None:
        return Verdict("memory", "unknown", f"{gib(peak)} per rank beside the process, on a CPU")
    text = (f"{gib(peak)} of {gib(limit)} that a training may take of a {place.gpu.name}"
            f" ({place.gpu.memory_gib:g} GiB)")  # fmt: skip
    word = _word(peak / limit)
    if word != "does not fit":
        return Verdict("memory", word, text)
    change = memory_change(cfg, resolution, channels, place)
    if change is None:
        text += "; no setting of [train.compute] makes it fit: take more GPUs, or a smaller model"
    return Verdict("memory", word, text, change or ())


def memory_change(
    cfg: Config, resolution: int, channels: int, place: Target
) -> tuple[str, ...] | None:
    """Cheapest settings that fit; None when none do."""
    from sunpipe.train.advice import suggest

    assert place.memory_bytes is not None
    found = suggest(resolution, channels, cfg.train, place.ranks, place.memory_bytes, "cuda")
    return None if found is None else found.changes


def time_verdict(seconds: float, limit_s: int | None) -> Verdict:
    """Against the time limit: a training that it stops is queued again and continues."""
    needs = f"{duration(seconds)} in all"
    if limit_s is None:
        return Verdict("time", "fits", needs)
    if limit_s <= 0:
        return Verdict("time", "does not fit", "the time limit is not longer than signal_s",
                       ("a longer time in the profile",))  # fmt: skip
    restarts = max(math.ceil(seconds / limit_s) - 1, 0)
    text = f"{needs}, {duration(limit_s)} in one job"
    if restarts:
        text += f": stopped and queued again {restarts} time{'s' * (restarts > 1)}"
    return Verdict("time", "tight" if restarts > REQUEUES else "fits", text)


def disk_verdict(needed: int, free: int, root: str) -> Verdict:
    """Against the free space of the data root; what is there already needs none."""
    text = f"{needed / 1e9:.3g} GB more, {free / 1e9:.3g} GB free in {root} (quotas are not seen)"
    return Verdict("disk", _word(needed / free if free else math.inf), text)


def duration(seconds: float) -> str:
    """``3 d 4 h``, ``2 h 5 min``, ``40 s``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"
