"""Where the two polarities stand: separation and tilt of their flux-weighted centroids."""

from __future__ import annotations

import torch

from sunpipe.physics.derivatives import root
from sunpipe.physics.patch import Patches

Tensor = torch.Tensor


def _axis(p: Patches) -> tuple[Tensor, Tensor]:
    """From the negative to the positive centroid, (B,) west and (B,) north, in Mm.

    NaN, without a gradient, where one polarity has no pixel in the mask.
    """
    ends = []
    missing = torch.zeros_like(p.pixel_cm, dtype=torch.bool)
    for flux in (p.bz.clamp(min=0), (-p.bz).clamp(min=0)):
        total = p.region.sum(flux)
        missing = missing | (total == 0)
        safe = total.masked_fill(total == 0, 1.0)  # 0 / 0 would spoil the gradient of the batch
        ends.append((p.region.sum(flux * p.region.column) / safe,
                     p.region.sum(flux * p.region.row) / safe))  # fmt: skip
    (x_pos, y_pos), (x_neg, y_neg) = ends
    west, north = (x_pos - x_neg) * p.megametres, (y_pos - y_neg) * p.megametres
    return west.masked_fill(missing, torch.nan), north.masked_fill(missing, torch.nan)


def polsep(p: Patches) -> Tensor:
    """Distance between the flux-weighted centroids of positive and negative Br, in Mm."""
    west, north = _axis(p)
    undefined = west.isnan()
    distance = root((west.square() + north.square()).masked_fill(undefined, 0.0))
    return distance.masked_fill(undefined, torch.nan)


def tilt(p: Patches) -> Tensor:
    """Angle of the line from the eastern to the western centroid, in degrees north of west.

    Between -90 and 90, whichever the leading polarity. Joy's law (leading
    polarity nearer to the equator) reads: negative in the north, positive in the south.
    """
    west, north = _axis(p)
    undefined = west.isnan()
    sign = torch.where(west < 0, -1.0, 1.0)
    west, north = (sign * each.masked_fill(undefined, 1.0) for each in (west, north))
    return torch.rad2deg(torch.atan2(north, west)).masked_fill(undefined, torch.nan)
