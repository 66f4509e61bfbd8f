"""Whether the answer stays when the query is mirrored, turned, or reversed in polarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.evaluate.bootstrap import mean
from sunpipe.evaluate.retrieval_archive import Archive
from sunpipe.evaluate.retrieval_baselines import unit_rows, vector_distances
from sunpipe.evaluate.retrieval_nearest import Askers, blocks
from sunpipe.physics.channels import apply_symmetry

if TYPE_CHECKING:
    from sunpipe.embed.encoder import FieldEncoder

Floats32 = NDArray[np.float32]
SYMMETRIES = ("flip_horizontal", "flip_vertical", "rotate90", "reverse_polarity")
BATCH = 64


def top_rows(
    archive: Archive, asked: Askers, vectors: Floats32, metric: str, k: int
) -> NDArray[np.int64]:
    """The `k` nearest tiles (Q, k) of other groups than the query's, nearest first.

    Exact, block by block; where fewer tiles are there, the rest is -1.
    """
    query = unit_rows(vectors, metric)
    far = np.full((len(query), k), np.inf, np.float32)
    place = np.full((len(query), k), -1, np.int64)
    for rows in blocks(len(archive)):
        new = vector_distances(query, unit_rows(archive.vectors[rows], metric), metric)
        new = np.where(asked.group[:, None] == archive.group[rows][None], np.inf, new)
        far = np.concatenate([far, new], axis=1)
        where = np.broadcast_to(np.arange(rows.start, rows.stop), new.shape)
        place = np.concatenate([place, where], axis=1)
        order = np.argsort(far, axis=1, kind="stable")[:, :k]
        far = np.take_along_axis(far, order, axis=1)
        place = np.take_along_axis(place, order, axis=1)
    return np.where(np.isfinite(far), place, -1)


def overlap(one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share (Q,) of the tiles of `one` (Q, k) that stand in `two` (Q, k), in any order."""
    same = (one[:, :, None] == two[:, None, :]) & (one >= 0)[:, :, None]
    count = np.maximum((one >= 0).sum(axis=1), 1)
    return np.asarray(same.any(axis=2).sum(axis=1) / count, np.float64)


def invariance(
    archive: Archive, asked: Askers, images: Callable[[slice], Floats32],
    encoder: FieldEncoder, metric: str, k: int, replicates: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """How far vectors and answers of queries move under each symmetry.

    Parameters
    ----------
    images : callable
        Gives a block of the queries' fields (B, C, H, H) at a time.

    Returns
    -------
    dict
        For each symmetry: ``moved``, the largest length of a change of vector over the
        length of the vector; ``top_1``, the share of queries with the same best answer;
        ``top_<k>``, the mean share of the k best that stay. Answers are tiles of other
        groups than the query's.
    """

    def vectors(name: str | None) -> Floats32:
        parts = []
        for rows in blocks(len(asked), BATCH):
            x = torch.from_numpy(images(rows))
            if name is not None:
                x = apply_symmetry(x, encoder.card.channels, name)
            parts.append(encoder.vectors(x))
        return np.concatenate(parts)

    plain = vectors(None)
    before = top_rows(archive, asked, plain, metric, k)
    size = np.maximum(np.linalg.norm(plain, axis=1), np.finfo(np.float32).tiny)
    found: dict[str, Any] = {}
    light = any(unit != "Gauss" for unit in encoder.card.units)
    for name in SYMMETRIES:
        if light and name == "reverse_polarity":
            continue  # an intensity has no polarity
        turned = vectors(name)
        after = top_rows(archive, asked, turned, metric, k)
        first = (before[:, 0] == after[:, 0]).astype(np.float64)
        found[name] = {
            "trained": name in encoder.card.symmetries,
            "moved": float((np.linalg.norm(turned - plain, axis=1) / size).max()),
            "top_1": mean(first, asked.group, replicates, seed),
            f"top_{k}": mean(overlap(before, after), asked.group, replicates, seed),
        }
    return found
