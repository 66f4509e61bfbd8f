"""Curves that lie on each other: where, so that the later does not hide the earlier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NEAR = 0.004  # of the height of a chart: about the width of a line
FEWEST = 3  # points of a stretch; curves that only cross do not hide each other
DASH = 3.5  # length of one run's dash, in widths of the line


def long_enough(mask: Mask, fewest: int) -> Mask:
    """The same mask without stretches of fewer than `fewest` points."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    kept = np.zeros(len(mask), dtype=bool)
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        kept[begin:end] = end - begin >= fewest
    return kept


def lies_on(line: tuple[Floats, Floats], other: tuple[Floats, Floats], near: float) -> Mask:
    """Which points of a line another line runs through.

    Parameters
    ----------
    line, other : (x, y), ndarrays (N,) and (M,)
        x ascending; a y that is not finite is no point.
    near : float
        Largest distance in y.

    Returns
    -------
    ndarray of bool (N,)
        Only stretches of at least `FEWEST` points, unless the line has no more.
    """
    (x, y), (x0, y0) = line, other
    seen, whole = np.isfinite(y0) & np.isfinite(x0), np.isfinite(y) & np.isfinite(x)
    if not seen.any() or not whole.any():
        return np.zeros(len(y), dtype=bool)
    there = np.interp(x[whole], x0[seen], y0[seen], left=np.nan, right=np.nan)
    mask = np.zeros(len(y), dtype=bool)
    with np.errstate(invalid="ignore"):
        mask[whole] = np.abs(y[whole] - there) <= near
    return long_enough(mask, min(FEWEST, int(whole.sum())))


def height(lines: Sequence[tuple[Floats, Floats]]) -> float:
    """Range of all finite values; 1 where there is none."""
    every = np.concatenate([y[np.isfinite(y)] for _, y in lines])
    return float(np.ptp(every)) or 1.0 if len(every) else 1.0


def overlaps(
    lines: Sequence[tuple[Floats, Floats]], near: float,
    whole: Sequence[tuple[Floats, Floats]] | None = None,
) -> list[Mask]:  # fmt: skip
    """Of each line, (E, N): which of its N points lie on each of the E earlier ones.

    Parameters
    ----------
    lines : sequence of (x, y)
    near : float
        As in `lies_on`.
    whole : sequence of (x, y), optional
        The same lines with all their points, where `lines` are thinned: of equal curves of
        different lengths other points are left, and between those a noisy curve is far away.
    """
    others = lines if whole is None else whole
    return [
        np.array([lies_on(line, other, near) for other in others[:place]], dtype=bool)
        .reshape(place, len(line[1])) for place, line in enumerate(lines)
    ]  # fmt: skip


def stripes(found: Sequence[Mask], place: int) -> tuple[Mask, Any]:
    """Points of line `place` that lie on earlier ones, and the dashes to draw it with there.

    Dashes of the lines that lie on each other follow each other, so that all are seen.

    Parameters
    ----------
    found : sequence
        From `overlaps`.

    Returns
    -------
    mask : ndarray of bool (N,)
    style : (float, (float, float))
        Offset and lengths of dash and gap, as matplotlib takes them.
    """
    depth = [np.sum(masks, axis=0, dtype=int) for masks in found]
    ranks = [int(each.max(initial=0)) for each in depth]
    many, rank = 1 + max(ranks), ranks[place]
    mask = depth[place] > 0
    return mask, ((many - rank) % many * DASH, (DASH, max(many - 1, 1) * DASH))


def joined(mask: Mask) -> Mask:
    """The points that are left and their neighbours, so that the line has no gap there."""
    rest = ~mask
    near = rest.copy()
    near[1:] |= rest[:-1]
    near[:-1] |= rest[1:]
    return near


def together(found: Sequence[Mask], finite: Sequence[Mask]) -> list[list[int]]:
    """Groups of lines that lie on each other from end to end.

    Parameters
    ----------
    found : sequence
        From `overlaps`.
    finite : sequence of ndarray of bool
        Points that each line has.

    Returns
    -------
    list of list of int
        Places; the first of each group is the earliest line.
    """
    groups: dict[int, list[int]] = {}
    for place, masks in enumerate(found):
        for other, mask in enumerate(masks):
            equal = finite[place].any() and finite[place].sum() == finite[other].sum()
            if equal and not (finite[place] & ~mask).any():
                first = next((key for key, group in groups.items() if other in group), other)
                groups.setdefault(first, [first]).append(place)
                break
    return list(groups.values())
