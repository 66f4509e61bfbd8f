"""Symmetries of the data as more data: mirrors, quarter turns, reversed polarity.

Applied to real images in physical units, before normalisation, with the signs
of a field's components (`sunpipe.physics.symmetry` tells which laws of the Sun
each of them breaks).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sunpipe.physics.channels import SCALARS, VECTOR, VECTOR_OPERATIONS, apply_symmetry
from sunpipe.train.augment import INTENSITIES
from sunpipe.train.chance import Chance


def check_symmetries(names: Sequence[str], channels: Sequence[str], units: Sequence[str]) -> None:
    """Refuse symmetries whose signs are not known for these channels.

    Parameters
    ----------
    names : sequence of str
        ``flip_horizontal``, ``flip_vertical``, ``rotate90``, ``reverse_polarity``.
    channels, units : sequence of str
        Of a dataset.

    Raises
    ------
    ValueError
        An unknown symmetry, a field component without a sign rule, a part of a
        vector without the rest, or `reverse_polarity` of an intensity.
    """
    if unknown := [name for name in names if name not in VECTOR_OPERATIONS]:
        raise ValueError(
            f"unknown symmetries {', '.join(unknown)}; known: {', '.join(VECTOR_OPERATIONS)}"
        )
    whole = set(VECTOR) <= set(channels)
    for channel, unit in zip(channels, units, strict=True):
        if unit in INTENSITIES:
            if "reverse_polarity" in names:
                raise ValueError(
                    f"reverse_polarity is for fields: channel {channel} is an intensity in {unit}"
                )
        elif names and unit != "Gauss":
            raise ValueError(f"no symmetries are known for channel {channel} in {unit}")
        elif names and channel not in SCALARS and not (whole and channel in VECTOR):
            raise ValueError(
                f"no sign rules for channel {channel}: symmetries know Br, Bt, Bp together,"
                " and each of Br, magnetogram"
            )


def apply_symmetries(
    fields: torch.Tensor, channels: Sequence[str], names: Sequence[str], chance: Chance
) -> torch.Tensor:
    """Apply each named symmetry to each sample with probability 1/2, in the order of `names`.

    Both mirrors and a quarter turn reach all eight positions of a square equally often.

    Parameters
    ----------
    fields : Tensor, (B, C, H, H)
        Gauss or DN/s, 0 where invalid.
    channels : sequence of str
        Names of the C channels, checked by `check_symmetries`.
    names : sequence of str
    chance : Chance
        Of these B samples.
    """
    for place, name in enumerate(names):
        chosen = chance.uniform(f"symmetry.{place}.{name}") < 0.5
        turned = apply_symmetry(fields, channels, name)
        fields = torch.where(chosen[:, None, None, None], turned, fields)
    return fields
