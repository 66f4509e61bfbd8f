"""A chain of symmetries as one step: pixels moved once, channels exchanged, signs put on.

`sunpipe.physics.channels.apply_symmetry` copies the images for each symmetry of a
chain; what a chain comes to is read off a small probe instead, so that the rules
of signs stand in one place only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sunpipe.physics.channels import apply_symmetry

Tensor = torch.Tensor


@dataclass(frozen=True)
class SignedMap:
    """Images (B, C, H, H) to images: ``sign[c] * move(x)[:, source[c]]``.

    Attributes
    ----------
    transpose : bool
        Exchange rows and columns, before the mirrors.
    flips : tuple of int
        Dimensions that are mirrored.
    source, sign : tuple of int
        Channel that each channel comes from, and 1 or -1.
    """

    transpose: bool
    flips: tuple[int, ...]
    source: tuple[int, ...]
    sign: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it."""
        channels = tuple(range(x.shape[1]))
        x = x.transpose(-1, -2) if self.transpose else x
        x = x.flip(self.flips) if self.flips else x
        if self.source != channels:
            x = x[:, list(self.source)]
        if set(self.sign) == {-1}:
            return -x
        if -1 in self.sign:
            return x * torch.tensor(self.sign, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return x


def signed_map(channels: Sequence[str], way: Sequence[str]) -> SignedMap:
    """What a chain of symmetries comes to.

    Parameters
    ----------
    channels : sequence of str
    way : sequence of str
        Names for `apply_symmetry`, in turn.

    Raises
    ------
    ValueError
        The chain is no mirror or quarter turn with exchanged and signed channels.
    """
    count = len(channels)
    probe = torch.arange(1.0, 1 + 4 * count).view(1, count, 2, 2)  # every number once
    wanted = probe
    for name in way:
        wanted = apply_symmetry(wanted, channels, name)
    for transpose in (False, True):
        for flips in ((), (-1,), (-2,), (-2, -1)):
            found = _channels(SignedMap(transpose, flips, tuple(range(count)), (1,) * count)(probe),
                              wanted)  # fmt: skip
            if found is not None:
                return SignedMap(transpose, flips, *found)
    raise ValueError(f"the symmetries {', '.join(way)} do not make a mirror or a quarter turn")


def _channels(moved: Tensor, wanted: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Source and sign of each channel, or None where the pixels moved otherwise."""
    source, sign = [], []
    for image in wanted[0]:
        matches = [(place, one) for place, other in enumerate(moved[0]) for one in (1, -1)
                   if torch.equal(one * other, image)]  # fmt: skip
        if not matches:
            return None
        source.append(matches[0][0])
        sign.append(matches[0][1])
    return tuple(source), tuple(sign)
