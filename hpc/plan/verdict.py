"""Does it fit: GPU memory, time limit, disk; and the smallest change that makes it fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hpc.plan.storage import Stored
from hpc.plan.target import Target
from sunpipe.settings import Config

if TYPE_CHECKING:
    from sunpipe.train.ledger import Ledger

TIGHT = 0.9  # of what may be taken: above it a plan is called tight
REQUEUES = 20  # above so many restarts by the time limit a plan is called tight
MOST_REQUEUES = 1000  # and above so many, or so long, that it is no plan
LONGEST_S = 365 * 86400.0
# Of a process that trains, beside the ledger: Python, torch and DeepSpeed as seen on a CPU at the
# start, and what the first steps add; one that uses a GPU holds more.
PROCESS_BYTES = 720 * 2**20
Word = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """One line of the answer.

    Attributes
    ----------
    about : {"memory", "host memory", "time", "disk"}
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
    """Against the memory of the GPU; `host_verdict` is for CPUs."""
    from sunpipe.train.ledger import gib

    assert place.gpu is not None
    assert place.memory_bytes is not None
    limit = place.memory_bytes
    text = (f"{gib(peak)} of {gib(limit)} that a training may take of a {place.gpu.name}"
            f" ({place.gpu.memory_gib:g} GiB)")  # fmt: skip
    word = _word(peak / limit if limit else math.inf)
    if word != "does not fit":
        return Verdict("memory", word, text)
    change = memory_change(cfg, resolution, channels, place)
    if change is None:
        text += "; no setting of [train.compute] makes it fit: take more GPUs, or a smaller model"
    return Verdict("memory", word, text, change or ())


def host_verdict(found: Ledger, place: Target) -> Verdict:
    """The whole training on a CPU, or what it offloads, against the memory of the host."""
    from sunpipe.train.ledger import gib

    on_cpu = place.gpu is None
    about = "memory" if on_cpu else "host memory"
    own = found.peak_bytes if on_cpu else found.host
    needed = own + PROCESS_BYTES
    text = f"{gib(needed)} a rank on the host, {gib(PROCESS_BYTES)} of it for the process"
    if not on_cpu:
        text += " (more with CUDA)"
    if place.host_bytes is None:
        return Verdict(about, "unknown", f"{text}; set mem in the profile to compare")
    word = _word(needed / place.host_bytes)
    change = () if word != "does not fit" else ("more mem in the profile",)
    return Verdict(about, word, f"{text}, of {gib(place.host_bytes)} that it gets", change)


def memory_change(
    cfg: Config, resolution: int, channels: int, place: Target
) -> tuple[str, ...] | None:
    """Cheapest settings that fit; None when none do."""
    from sunpipe.train.advice import suggest

    assert place.memory_bytes is not None
    found = suggest(resolution, channels, cfg.train, place.ranks, place.memory_bytes, "cuda",
                    half=bool(place.gpu and place.gpu.bf16))  # fmt: skip
    return None if found is None else found.changes


def time_verdict(seconds: float, limit_s: int | None) -> Verdict:
    """Against the time limit: a training that it stops is queued again and continues."""
    needs = f"{duration(seconds)} in all"
    if seconds > LONGEST_S:
        return Verdict("time", "does not fit", f"{needs}: more than a year",
                       ("more GPUs, or a smaller train.kimg",))  # fmt: skip
    if limit_s is None:
        return Verdict("time", "unknown", f"{needs}; no profile gives a time limit")
    if limit_s <= 0:
        return Verdict("time", "does not fit", "the time limit is not longer than signal_s",
                       ("a longer time in the profile",))  # fmt: skip
    restarts = _restarts(seconds, limit_s)
    text = f"{needs}, {duration(limit_s)} in one job"
    if restarts:
        text += f": stopped and queued again {restarts} time{'s' * (restarts > 1)}"
    if restarts > MOST_REQUEUES:
        return Verdict("time", "does not fit", text, ("a longer time in the profile",))
    return Verdict("time", "tight" if too_long(seconds, limit_s) else "fits", text)


def _restarts(seconds: float, limit_s: float) -> int:
    return max(math.ceil(seconds / limit_s) - 1, 0)


def too_long(seconds: float, limit_s: float) -> bool:
    """Whether a training is stopped and queued again more often than one may like."""
    return _restarts(seconds, limit_s) > REQUEUES or seconds > LONGEST_S


def disk_verdict(kept: Sequence[Stored], free: int, root: str) -> Verdict:
    """Against the free space of the data root; what is there already needs none.

    It does not fit only where what is certain does not, and fits only where upper bounds do.
    """
    sure = sum(one.more for one in kept if not one.at_most)
    most = sum(one.more for one in kept)
    unknown = [one.what for one in kept if one.bytes is None]
    bounded = [one.what for one in kept if one.at_most and one.more]
    least = f"{sure / 1e9:.3g} GB more"
    text = f"{free / 1e9:.3g} GB free in {root} (quotas are not seen)"
    word = _share_word(sure, free)
    if unknown:
        text = f"at least {least}, {text}; not known yet: {', '.join(unknown)}"
        if bounded:
            text += f"; at most {(most - sure) / 1e9:.3g} GB beside it: {', '.join(bounded)}"
        return Verdict("disk", word if word == "does not fit" else "unknown", text)
    if not bounded:
        return Verdict("disk", word, f"{least}, {text}")
    text = f"at most {most / 1e9:.3g} GB more, at least {sure / 1e9:.3g}, {text}"
    if word != "does not fit":
        word = _share_word(most, free)
        word = "unknown" if word == "does not fit" else word
    return Verdict("disk", word, text)


def _share_word(needed: int, free: int) -> Word:
    return _word(needed / free if free else math.inf)


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
