"""Centroids and code books of the kinds worth building, learned from a bounded sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import UsageError
from sunpipe.index.choose import SMALL, Candidate, too_large
from sunpipe.index.codes import Shape, add, copy_of, subs, train
from sunpipe.index.measure import Asked, ask, held_out
from sunpipe.index.sources import Source, starts, take
from sunpipe.index.tune import depth, tune, wanted
from sunpipe.index_settings import IndexSettings

Floats32 = NDArray[np.float32]
Learned = dict[str, tuple[Shape, Any]]
LEAST = 1000  # vectors from which codes can be learned
PER_LIST = 64  # sample vectors per list
SAMPLES = (32_768, 262_144)  # least and most vectors that are learned from
LISTS = (16, 4096)
PROMISING = 8  # inverted lists must do with this part of the lists on the sample
SEED = 77


def list_count(count: int) -> int:
    """Inverted lists: the power of two next to sqrt(N), from 16 to 4096.

    Codes are read so fast that more lists would save less there than their centroids
    cost, which every vector and every query is compared with.

    >>> list_count(50_000), list_count(1_000_000)
    (256, 1024)
    """
    return int(np.clip(2 ** round(np.log2(np.sqrt(max(count, 1)))), *LISTS))


def kinds_to_try(settings: IndexSettings, count: int, dim: int) -> tuple[list[str], str]:
    """Code kinds that are learned and measured; and why there are none, if so.

    Raises
    ------
    UsageError
        Codes were asked for by name, but there is too little to learn them from.
    """
    if settings.kind == "flat":
        return [], "flat was asked for"
    if settings.kind != "auto":
        if count < LEAST:
            raise UsageError(f"kind {settings.kind} learns its codes from at least {LEAST} vectors,"
                             f" there are {count}; use --kind flat")  # fmt: skip
        return [settings.kind], ""
    if count < SMALL:
        return [], f"{count} vectors are fewer than {SMALL}: comparing all is fast enough"
    if settings.recall == 1:
        return [], "a recall of 1 is asked for, which only exact search promises"
    fit = [
        kind for kind in ("fastscan", "ivf") if not too_large(kind, count, dim, settings.memory_gb)
    ]
    return fit, "" if fit else "no code fits [index] memory_gb"


def sample_rows(count: int, dim: int, memory_gb: float) -> NDArray[np.int64]:
    """Rows to learn from, ascending: never those that will judge."""
    most = int(np.clip(PER_LIST * list_count(count), *SAMPLES))
    most = max(LEAST, min(most, int(memory_gb * 1e9 / (16 * dim))))  # a quarter of the memory
    asking = np.concatenate(held_out(count))
    others = np.setdiff1d(np.arange(count), asking, assume_unique=False)
    if len(others) > most:
        others = np.sort(np.random.default_rng(SEED).choice(others, most, replace=False))
    return others


def learn(
    sources: Sequence[Source], kinds: Sequence[str], metric: str, settings: IndexSettings
) -> tuple[Learned, list[Candidate]]:
    """Train the kinds; leave out inverted lists that cannot pay on these vectors.

    Returns
    -------
    dict
        Kind to its shape and its empty, trained FAISS index.
    list of Candidate
        Kinds that were left out, with the reason.
    """
    if not kinds:
        return {}, []
    count = starts(sources)[-1]
    rows = sample_rows(count, sources[0].dim, settings.memory_gb)
    asking = held_out(count)[0]
    both = np.vstack([take(sources, rows, metric), take(sources, asking, metric)])
    sample = both[: len(rows)]
    asked = ask(both, np.arange(len(rows), len(both)), metric)
    scan, sub = _best_codes(sample, both, asked, metric, settings.recall)
    learned: Learned = {}
    left_out: list[Candidate] = []
    if "fastscan" in kinds:
        learned["fastscan"] = (Shape(1, sub), scan)
    if "ivf" in kinds:
        shape = Shape(min(list_count(count), max(1, len(sample) // 16)), sub)
        lists = train(sample, metric, shape)
        share = _promise(lists, both, asked, settings.recall)
        if "fastscan" in kinds and share < wanted(settings.recall):
            left_out.append(Candidate("ivf", share, 0.0, asdict(shape), note=
                f"a {PROMISING}th of {shape.lists} lists holds {share:.3f} of the neighbours in"
                f" a sample of {len(both)}"))  # fmt: skip
        else:
            learned["ivf"] = (shape, lists)
    return learned, left_out


def _best_codes(
    sample: Floats32, both: Floats32, asked: Asked, metric: str, recall: float
) -> tuple[Any, int]:
    """The length of codes that scans the sample fastest at the recall."""
    best: tuple[float, Any, int] | None = None
    for sub in subs(sample.shape[1]):
        trained = train(sample, metric, Shape(1, sub))
        filled = copy_of(trained)
        add(filled, both, 0)
        tuned, most = tune(filled, both, asked, metric, recall)
        score = tuned.qps if tuned else most - 1  # one that reaches it beats all that do not
        if best is None or score > best[0]:
            best = (score, trained, sub)
    assert best is not None
    return best[1], best[2]


def _promise(trained: Any, both: Floats32, asked: Asked, recall: float) -> float:
    """Share of the neighbours within an eighth of the lists, in the sample."""
    filled = copy_of(trained)
    add(filled, both, 0)
    nprobe = max(1, trained.nlist // PROMISING)
    return depth(filled, asked, nprobe, wanted(recall))[1]
