"""The audit of copies on a bench: who asks, what may answer, and the closest pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.memorisation import (
    SIGNS,
    SPACES,
    Closeness,
    audit,
    closeness,
    percentile,
    suspicion,
)
from sunpipe.evaluate.retrieval_archive import choose
from sunpipe.evaluate.retrieval_bench import Bench
from sunpipe.evaluate.retrieval_nearest import Askers, Nearest, askers, strangers
from sunpipe.physics.channels import orbit

Floats32 = NDArray[np.float32]
PAIRS = 8  # shown
FEWEST_TRAIN = 3  # HARPs; fewer have no distances among each other to compare with


@dataclass
class Side:
    """Generated, training or held-out patches that ask for their nearest training tile."""

    asked: Askers
    tables: dict[str, Nearest]
    sizes: dict[str, NDArray[np.float64]]

    def closeness(self) -> dict[str, Closeness]:
        """Of both spaces, once the pixels are compared."""
        return {space: closeness(self.tables[space], self.sizes[space]) for space in SPACES}


def contrast(rows: Floats32, channels: int) -> NDArray[np.float64]:
    """Length (N,) of pixel rows (N, channels * pixels) without the mean of each channel."""
    image = rows.reshape(len(rows), channels, -1)
    return np.sqrt(image.var(axis=2, dtype=np.float64).sum(axis=1) * image.shape[2])


@dataclass
class Audit:
    """The three sides, waiting for `Bench.compare_pixels`."""

    bench: Bench
    sides: dict[str, Side]

    @property
    def train(self) -> int:
        """Training tiles that were compared."""
        return int(self.bench.archive.train.sum())


def ways_of(bench: Bench, symmetries: list[str]) -> list[tuple[str, ...]]:
    """All combinations of the symmetries of a generator's training, the empty one first."""
    return orbit(bench.reader.info.channels, symmetries)


def begin_audit(
    bench: Bench, rows: Floats32, vectors: Floats32, ways: list[tuple[str, ...]]
) -> Audit | None:
    """Ask for the nearest training tiles of generated, training and held-out patches.

    Parameters
    ----------
    bench : Bench
    rows : float32 ndarray (N, pixels)
        The generated patches as pixel rows, as they lie.
    vectors : float32 ndarray (N, dim)
        Of the generated patches.
    ways : list
        From `ways_of`: training has seen each patch in all of them, so pixels are
        compared in all of them, on all three sides.

    Returns
    -------
    Audit or None
        None where fewer than three training HARPs are there.
    """
    archive = bench.archive
    train = archive.train
    if len(np.unique(archive.group[train])) < FEWEST_TRAIN:
        return None
    channels = len(bench.reader.info.channels)
    asking: dict[str, tuple[Askers, Floats32, Floats32]] = {
        "generated": (strangers(len(vectors)), rows, vectors)
    }
    for name, allowed in (("train", train), ("held_out", ~train)):
        chosen = choose(archive, allowed, bench.settings.queries)
        if len(chosen):
            seen = bench.pixel_rows(chosen)
            asking[name] = (askers(archive, chosen), seen, archive.vectors[chosen])
    sides = {
        name: Side(asked, {
            "embedding": bench.by_vector(asked, some_vectors, train),
            "pixels": bench.ask_pixels(asked, some_rows, ways, train),
        }, {
            "embedding": np.linalg.norm(some_vectors.astype(np.float64), axis=1),
            "pixels": contrast(some_rows, channels),
        })
        for name, (asked, some_rows, some_vectors) in asking.items()
    }  # fmt: skip
    return Audit(bench, sides)


def end_audit(asked: Audit) -> tuple[dict[str, Any], dict[str, dict[str, Closeness]]]:
    """Numbers of the audit with its closest pairs, and the closeness of each side."""
    bench = asked.bench
    found = {name: side.closeness() for name, side in asked.sides.items()}
    clusters = {name: side.asked.group for name, side in asked.sides.items()}
    clusters["generated"] = np.arange(len(clusters["generated"]))  # each sample stands for itself
    numbers = audit(
        found["generated"], found["train"], found.get("held_out"), clusters,
        bench.settings.bootstrap, bench.seed,
    )  # fmt: skip
    return {
        **numbers, "train_tiles": asked.train, "pairs": closest(asked, found),
    }, found  # fmt: skip


def closest(asked: Audit, found: dict[str, dict[str, Closeness]]) -> list[dict[str, Any]]:
    """The most suspicious generated samples with their nearest training tile by pixels."""
    sample, scale = found["generated"], found["train"]
    order = np.argsort(suspicion(sample, scale), kind="stable")[:PAIRS]
    archive, rows = asked.bench.archive, []
    for number in order:
        place = int(sample["pixels"].position[number])
        rows.append({
            "sample": int(number), "record": archive.records[place],
            "row": int(archive.rows[place]),
        })  # fmt: skip
        for space, what in SIGNS:
            one, all_ = (getattr(side[space], what) for side in (sample, scale))
            rows[-1][f"{space}_{what}"] = float(one[number])
            rank = percentile(one[number : number + 1], all_)[0]
            rows[-1][f"{space}_{what}_percentile"] = float(100 * rank)
    return [{key: None if isinstance(value, float) and not np.isfinite(value) else value
             for key, value in row.items()} for row in rows]  # fmt: skip
