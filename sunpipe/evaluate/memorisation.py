"""Does a generator copy? Its samples beside how near real patches are to the training patches.

A small distance alone says little: weak fields are near to everything. So three numbers
must be small together. The *ratio*, of the distance to the nearest training HARP to the mean
distance to the next `NEIGHBOURS` ones, one tile each, in both spaces: a copy has one
neighbour that is far nearer than all others (after Carlini et al. 2023, arXiv:2301.13188,
section 4.2). And the *residual*, the distance in pixels over the sample's own contrast: a
weak patch whose nearest neighbour is the one weak HARP has a small ratio, but its
neighbour explains nothing of it. The scale is what training patches get among the
training patches of other HARPs, and, as the honest control, what held-out HARPs get.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.evaluate.bootstrap import mean
from sunpipe.evaluate.retrieval_nearest import Nearest

Floats = NDArray[np.float64]
NEIGHBOURS = 10  # HARPs that make a sample's background
QUANTILE = 0.01  # of train-to-train; nearer is suspicious
SPACES = ("embedding", "pixels")
SIGNS = (("embedding", "ratio"), ("pixels", "ratio"), ("pixels", "residual"))  # of a copy


@dataclass(frozen=True)
class Closeness:
    """Of Q samples in one space.

    Attributes
    ----------
    distance : ndarray (Q,)
        To the nearest training tile of another HARP than the sample's.
    ratio : ndarray (Q,)
        That over the mean distance to the next HARPs; NaN where there are none.
    residual : ndarray (Q,)
        The distance over the sample's own size; NaN where it has none.
    position : ndarray (Q,)
        Of the nearest tile in the archive; -1 for none.
    """

    distance: Floats
    ratio: Floats
    residual: Floats
    position: NDArray[np.int64]


def closeness(found: Nearest, size: Floats) -> Closeness:
    """Read the nearest training tiles of each sample from `found`; `size` (Q,) is their own."""
    nearest, position = found.match(other_group=True)
    ordered = np.sort(found.others().astype(np.float64), axis=1)[:, 1 : 1 + NEIGHBOURS]
    known = np.isfinite(ordered)
    total = np.where(known, ordered, 0).sum(axis=1)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where((count > 0) & (total > 0), nearest / (total / count), np.nan)
        residual = np.where((size > 0) & (position >= 0), nearest / size, np.nan)
    return Closeness(np.where(position >= 0, nearest, np.nan), ratio, residual, position)


def percentile(values: Floats, scale: Floats) -> Floats:
    """Share of `scale` (M,) that is not above each of `values` (N,); NaN stays NaN."""
    ordered = np.sort(scale[np.isfinite(scale)])
    share = np.searchsorted(ordered, values, "right") / max(len(ordered), 1)
    return np.where(np.isfinite(values) & (len(ordered) > 0), share, np.nan)


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _median(values: Floats) -> float | None:
    good = _finite(values)
    return float(np.median(good)) if len(good) else None


def below(
    values: Floats, scale: Floats, clusters: NDArray[Any], replicates: int, seed: int
) -> dict[str, Any]:
    """Share of `values` under the 1 % quantile of `scale`, with its interval."""
    limit = np.quantile(_finite(scale), QUANTILE) if len(_finite(scale)) else np.nan
    inside = np.where(np.isfinite(values) & np.isfinite(limit), values < limit, np.nan)
    return mean(inside.astype(np.float64), clusters, replicates, seed)


def copies(sample: dict[str, Closeness], scale: dict[str, Closeness]) -> NDArray[np.bool_]:
    """Samples under the 1 % quantile of train-to-train by every one of `SIGNS` (Q,)."""
    inside = []
    for space, what in SIGNS:
        known = _finite(getattr(scale[space], what))
        limit = np.quantile(known, QUANTILE) if len(known) else -np.inf
        with np.errstate(invalid="ignore"):
            inside.append(getattr(sample[space], what) < limit)
    return np.logical_and.reduce(inside)


def suspicion(sample: dict[str, Closeness], scale: dict[str, Closeness]) -> Floats:
    """How unusual each sample is (Q,): the largest of its percentiles, low is suspicious.

    Ties, which all samples below the whole scale are, are broken by the residual.
    """
    shares = [percentile(getattr(sample[space], what), getattr(scale[space], what))
              for space, what in SIGNS]  # fmt: skip
    fine = np.nan_to_num(sample["pixels"].residual, nan=1.0)
    return np.nan_to_num(np.max(shares, axis=0), nan=1.0) + 1e-6 * fine


def audit(
    generated: dict[str, Closeness], train: dict[str, Closeness],
    held_out: dict[str, Closeness] | None, clusters: dict[str, NDArray[Any]],
    replicates: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Compare generated samples and held-out patches with train-to-train.

    Parameters
    ----------
    generated, train, held_out : dict
        ``embedding`` and ``pixels`` to `Closeness`; `held_out` None where there are
        no held-out HARPs.
    clusters : dict
        ``generated``, ``train`` and ``held_out``: what the bootstrap draws.
    replicates, seed : int

    Returns
    -------
    dict
        For each space the medians of distance, ratio and (pixels) residual, the 1 %
        quantile of train-to-train, the shares below it; ``copies``, the numbers of the
        samples below it by all of `SIGNS`; and their share, on each side.
    """
    sides = {"generated": generated, "held_out": held_out}
    found: dict[str, Any] = {"quantile": QUANTILE, "neighbours": NEIGHBOURS}
    for space in SPACES:
        row: dict[str, Any] = {}
        for what in ("distance", "ratio", "residual")[: 3 if space == "pixels" else 2]:
            scale = getattr(train[space], what)
            row[what] = {
                "train_median": _median(scale),
                "train_quantile": float(np.quantile(_finite(scale), QUANTILE))
                if len(_finite(scale)) else None,
            }  # fmt: skip
            for name, side in sides.items():
                if side is not None:
                    values = getattr(side[space], what)
                    row[what][f"{name}_median"] = _median(values)
                    row[what][f"{name}_below"] = below(
                        values, scale, clusters[name], replicates, seed
                    )
        found[space] = row
    for name, side in {**sides, "train": train}.items():
        if side is not None:
            flags = copies(side, train)
            share = mean(flags.astype(np.float64), clusters[name], replicates, seed)
            found[f"{name}_copies"] = share
            if name == "generated":
                found["copies"] = np.flatnonzero(flags).tolist()
    return found
