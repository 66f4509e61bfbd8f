"""Which kind of index: measured on the vectors themselves, with the reason in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.index.codes import Effort, Found, Shape, find, squared
from sunpipe.index.exact import exact
from sunpipe.index.lookup import Lookup, lookup
from sunpipe.index.margin import Filtered, hard_factor, trusted_from
from sunpipe.index.measure import AT, LONG_S, Asked, hits, per_second, without_self
from sunpipe.index.store import NEVER
from sunpipe.index.tune import DEEPEST, tune

Floats32 = NDArray[np.float32]
KINDS = ("flat", "fastscan", "ivf")  # from the simplest on
SMALL = 10_000  # vectors that are compared in a few milliseconds anyway
NOISE = 0.10  # of a timing: within it the simpler kind is taken
PATIENCE = 4  # times the comparisons are raised when the judging queries ask for more
GATHERED = 2048  # rows whose gathering is timed


@dataclass(frozen=True)
class Candidate:
    """One kind that was measured.

    Attributes
    ----------
    kind : str
    recall : float
        Share of the true `AT` nearest that were found for the judging queries.
    qps : float
        Judging queries per second, asked together.
    shape, search : dict
        What it is made of, and how it is searched; empty for ``flat``.
    costs : dict
        Seconds per query: ``scan``, and ``full`` with every list.
    note : str
        Why it cannot be taken, if so.
    """

    kind: str
    recall: float
    qps: float
    shape: dict[str, int] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    note: str = ""


def judge_flat(vectors: Floats32, judging: Asked, metric: str) -> Candidate:
    """Exact search: only its speed is in question; where it takes long, finding the truth told."""
    if judging.seconds * len(judging.rows) > LONG_S:
        return Candidate("flat", 1.0, 1 / judging.seconds)
    qps = per_second(lambda: exact(vectors, judging.queries, judging.k + 1, metric),
                     len(judging.rows))  # fmt: skip
    return Candidate("flat", 1.0, qps)


def judge_codes(
    kind: str, shape: Shape, index: Any, vectors: Floats32, asked: tuple[Asked, Asked],
    cases: list[Filtered], metric: str, recall: float, costs: dict[str, float],
) -> Candidate:  # fmt: skip
    """Tune a filled index on one set of queries, measure it on the other.

    What is measured is what a search does: answers that are sought again count with
    their time.
    """
    tuning, judging = asked
    tuned, most = tune(index, vectors, tuning, metric, recall)
    effort = tuned.effort if tuned else Effort(index.nlist, DEEPEST)
    share = 0.0
    for last in (False,) * PATIENCE + (True,):
        found = find(index, vectors, judging.queries, judging.k + 1, metric, effort)
        share = float(hits(judging, found.values, found.rows, metric).mean())
        if share >= recall or last or tuned is None:
            break
        effort = Effort(min(index.nlist, 2 * effort.nprobe), effort.factor + effort.factor // 2 + 1)
    if tuned is None:
        note = (f"its codes find {max(share, most):.4f} of the neighbours, so that every row is"
                " compared")  # fmt: skip
        plain = {"nprobe": effort.nprobe, "factor": effort.factor, "full_factor": 0}
        qps = 1 / (costs["exact"] * len(vectors))
        return Candidate(kind, 1.0, qps, asdict(shape), plain, {"scan": NEVER, "full": NEVER}, note)
    full = hard_factor(index, cases, recall)
    own = find(index, vectors, tuning.queries, tuning.k + 1, metric, effort)
    search: dict[str, Any] = {
        "nprobe": effort.nprobe, "factor": effort.factor,
        "full_factor": full and max(full, effort.factor),
        "margin": float(own.margin.min()), "far": _farthest(tuning, own, metric),
        "trusted": trusted_from(index, vectors, cases, metric, effort, recall),
    }  # fmt: skip
    whole = Effort(index.nlist, full or DEEPEST)
    every = partial(find, index, vectors, judging.queries, judging.k + 1, metric, whole)
    slow = 1 / per_second(every, len(judging.rows))
    mine = Lookup(index, vectors, metric, kind, search, {**costs, "scan": 0.0, "full": slow})
    answer = partial(lookup, mine, judging.queries, judging.k + 1, None)
    share = float(hits(judging, *answer(), metric).mean())
    qps = per_second(answer, len(judging.rows))
    note = "" if share >= recall else f"it finds {share:.4f} of the neighbours"
    return Candidate(kind, share, qps, asdict(shape), search, {"scan": 1 / qps, "full": slow}, note)


def _farthest(asked: Asked, found: Found, metric: str) -> float:
    """Largest squared distance between a query and the nearest other vector."""
    others = without_self(asked.rows, found.rows, found.values)[1]
    return float(squared(others[:, 0], metric).max())


def too_large(kind: str, count: int, dim: int, memory_gb: float) -> str:
    """Why the kind does not fit the memory, or nothing.

    Exact search reads every vector for every batch, so they must fit; codes read
    some hundred rows per query from the mapped file and need only themselves.
    """
    need = 4 * count * dim / 1e9 if kind == "flat" else count * (dim / 16 + 8) / 1e9
    if need <= memory_gb:
        return ""
    return f"its {need:.3g} GB exceed the {memory_gb:.3g} GB of [index] memory_gb"


def pick(candidates: list[Candidate], recall: float) -> tuple[Candidate, str]:
    """The fastest that reaches the recall; the simpler one within the noise of timing.

    Returns
    -------
    Candidate
    str
        The reason, in words.
    """
    able = [each for each in candidates if not each.note]
    if not able:
        flat = next(each for each in candidates if each.kind == "flat")
        return flat, ("no kind both fits the memory and reaches the recall, so it is exact"
                      f" ({'; '.join(f'{c.kind}: {c.note}' for c in candidates)})")  # fmt: skip
    best = max(each.qps for each in able)
    able.sort(key=lambda each: KINDS.index(each.kind))
    chosen = next(each for each in able if each.qps >= (1 - NOISE) * best)
    others = [_compared(each) for each in candidates if each is not chosen]
    reason = (f"{chosen.kind} finds {chosen.recall:.4f} of the true {AT} nearest"
              f" (asked: {recall:g}) at {chosen.qps:.0f} queries/s")  # fmt: skip
    if chosen.qps < best:
        reason += f", within {NOISE:.0%} of the fastest and simpler"
    return chosen, reason + ("; " + "; ".join(others) if others else "")


def _compared(other: Candidate) -> str:
    return f"{other.kind}: {other.note or f'{other.qps:.0f} queries/s at {other.recall:.4f}'}"


def gather_seconds(vectors: Floats32) -> float:
    """Seconds to fetch one row that is not beside the last one."""
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), min(len(vectors), GATHERED),
                                                   replace=False))  # fmt: skip
    return 1 / per_second(lambda: vectors[rows], len(rows))


def plain(candidates: list[Candidate]) -> list[dict[str, Any]]:
    """Candidates for ``index.json``."""
    return [{**asdict(each), "recall": round(each.recall, 4), "qps": round(each.qps, 1)}
            for each in candidates]  # fmt: skip
