"""Mirrors, turns and polarity reversal of images whose channels go by name.

`sunpipe.physics.symmetry` knows Br, Bt, Bp; here each channel of a dataset is
given the rule of its name; `sunpipe.train.symmetries` refuses names that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sunpipe.physics import symmetry
from sunpipe.physics.measurable import WAVES

Tensor = torch.Tensor
VECTOR = ("Br", "Bt", "Bp")
# Channels that are one number per pixel, and what polarity reversal does to it.
SCALARS = {"Br": -1, "magnetogram": -1, "mask": 1, **{str(wave): 1 for wave in WAVES}}
VECTOR_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip_horizontal": symmetry.flip_horizontal,
    "flip_vertical": symmetry.flip_vertical,
    "rotate90": symmetry.rotate90,
    "reverse_polarity": symmetry.reverse_polarity,
}
PLAIN_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip_horizontal": lambda x: x.flip(-1),
    "flip_vertical": lambda x: x.flip(-2),
    # One turn in the sense of symmetry.rotate90, from west towards north.
    "rotate90": lambda x: torch.rot90(x, 1, dims=(-1, -2)),
    "reverse_polarity": lambda x: x,
}


def apply_symmetry(fields: Tensor, channels: Sequence[str], name: str) -> Tensor:
    """One of `VECTOR_OPERATIONS` on (B, C, H, W), each channel by its own sign rule.

    Parameters
    ----------
    fields : Tensor, (B, C, H, H)
    channels : sequence of str
        Names of the C channels, in any order.
    name : str
        ``flip_horizontal``, ``flip_vertical``, ``rotate90`` or ``reverse_polarity``.
    """
    names = list(channels)
    result = PLAIN_OPERATIONS[name](fields).clone()
    vector = set(VECTOR) <= set(names)
    if vector:
        places = [names.index(part) for part in VECTOR]
        result[:, places] = VECTOR_OPERATIONS[name](fields[:, places])
    if name == "reverse_polarity":
        for place, channel in enumerate(names):
            if not (vector and channel in VECTOR):
                result[:, place] *= SCALARS[channel]
    return result


def orbit(channels: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """All different ways to combine symmetries, each as the names to apply in turn.

    With mirrors, quarter turns and polarity reversal these are 16, the first of
    them the empty one.

    Parameters
    ----------
    channels : sequence of str
    names : sequence of str
        Those of `apply_symmetry` that generate the group.
    """
    probe = torch.arange(1.0, 1 + 9 * len(channels)).reshape(1, len(channels), 3, 3)
    ways: list[tuple[str, ...]] = [()]
    seen = [probe]
    place = 0
    while place < len(ways):
        for name in names:
            image = apply_symmetry(seen[place], channels, name)
            if not any(torch.equal(image, other) for other in seen):
                ways.append((*ways[place], name))
                seen.append(image)
        place += 1
    return ways
