"""Measuring images, real or generated, by the names of their channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sunpipe.physics.euv import measure_euv
from sunpipe.physics.measurable import (
    COMPONENTS,
    CONVENTION,
    EUV,
    FIELD,
    euv_parts,
    require_measurable,
)
from sunpipe.physics.measurement import measure

Tensor = torch.Tensor


def measure_images(
    images: Tensor, channels: Sequence[str], pixel_cm: float | Tensor, names: Sequence[str]
) -> Tensor:
    """Measure images, real or generated.

    Parameters
    ----------
    images : Tensor, (B, C, H, W)
        Physical units (gauss, DN/s).
    channels : sequence of str
        Names of the C channels.
    pixel_cm : float or Tensor (B,)
        Side of a pixel in cm.
    names : sequence of str
        Of `sunpipe.physics.measurable.measurable`.

    Returns
    -------
    Tensor, (B, Q) float64
        NaN where undefined; with a gradient for vector fields that ask for one.

    Raises
    ------
    ValueError
        A quantity that these channels do not give.
    """
    require_measurable(names, channels)
    places = {channel: place for place, channel in enumerate(channels)}
    pixel = torch.as_tensor(pixel_cm, dtype=torch.float64, device=images.device).expand(len(images))
    found: dict[str, Tensor] = {}
    field_names = tuple(name for name in names if euv_parts(name) is None)
    if field_names and set(COMPONENTS) <= set(places):
        vector = images[:, [places[name] for name in COMPONENTS]]
        found = measure(vector, pixel, names=field_names, convention=CONVENTION)
    elif field_names:
        los = images[:, places[FIELD]]
        lone = torch.zeros_like(los)
        fields = torch.stack([los, lone, lone], dim=1)
        found = measure(fields, pixel, names=field_names, convention=CONVENTION, los=los)
    for channel, place in places.items():
        kinds = tuple(kind for kind in EUV if f"{kind}{channel}" in names)
        if kinds:
            measured = measure_euv(images[:, place], pixel, kinds)
            found.update({f"{kind}{channel}": value for kind, value in measured.items()})
    return torch.stack([found[name].double() for name in names], dim=1)
