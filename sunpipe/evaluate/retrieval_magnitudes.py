"""Measured quantities without what an invariant encoder cannot know.

With mirrors, turns and polarity reversal among its symmetries, the embedding of a patch
says nothing of the sign of its net flux or of the angle of its axis. Keywords that hold
both are asked another question than the embedding. Here the symmetries themselves
tell, on patches of the archive, which quantities stay, which only change sign, and which
change: they are kept, taken as magnitude, and left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.evaluate.retrieval_sweep import turn
from sunpipe.physics.images import measure_images

Floats = NDArray[np.float64]
SAME = 0.01  # of a quantity's standard deviation: what a turned stencil may move
MOST = 0.9  # of the patches that must keep a quantity


@dataclass(frozen=True)
class Magnitudes:
    """Which columns of a table of quantities stay under the symmetries.

    Attributes
    ----------
    columns : list of int
        That are kept.
    signed : list of bool
        Of those: whether only the magnitude is kept.
    names : list of str
        ``X``, or ``|X|``.
    """

    columns: list[int]
    signed: list[bool]
    names: list[str]

    def __call__(self, values: Floats) -> Floats:
        """The kept columns of values (N, Q), as magnitudes where they are signed."""
        kept = values[:, self.columns]
        return np.where(self.signed, np.abs(kept), kept)


def _stays(one: Floats, two: Floats, scale: float) -> bool:
    """Whether a column of patches is the same before and after, NaN for NaN."""
    both = np.isfinite(one) | np.isfinite(two)
    return bool(both.any()) and bool((np.abs(one - two)[both] <= SAME * scale).mean() >= MOST)


def invariant(
    fields: NDArray[np.float32], pixel_cm: Floats, channels: Sequence[str],
    names: list[str], symmetries: Sequence[str],
) -> Magnitudes:  # fmt: skip
    """Learn from patches what `symmetries` leave of each quantity.

    Parameters
    ----------
    fields : ndarray (B, C, H, H)
        In physical units.
    pixel_cm : ndarray (B,)
    channels : sequence of str
    names : list of str
        Of `sunpipe.physics.measurable`. One that none of the patches has is left out.
    symmetries : sequence of str
        Of `sunpipe.physics.channels.apply_symmetry`.
    """

    def values(way: tuple[str, ...]) -> Floats:
        image = turn(torch.from_numpy(fields), channels, way)
        with torch.inference_mode():
            found = measure_images(image, channels, torch.from_numpy(pixel_cm), names)
        return np.asarray(found.double().numpy(), np.float64)

    plain = values(())
    turned = [values((name,)) for name in symmetries]
    columns, signed = [], []
    for place in range(len(names)):
        mine = plain[:, place]
        known = mine[np.isfinite(mine)]
        scale = float(known.std()) if len(known) else 0.0
        others = [each[:, place] for each in turned]
        if all(_stays(mine, other, scale) for other in others):
            signed.append(False)
        elif all(_stays(np.abs(mine), np.abs(other), scale) for other in others):
            signed.append(True)
        else:
            continue
        columns.append(place)
    kept = [f"|{names[place]}|" if sign else names[place]
            for place, sign in zip(columns, signed, strict=True)]  # fmt: skip
    return Magnitudes(columns, signed, kept)
