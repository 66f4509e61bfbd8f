"""Where the two polarities stand: separation and tilt of their flux-weighted centroids."""

from __future__ import annotations

import torch

from sunpipe.physics.patch import Patches

Tensor = torch.Tensor


def _axis(p: Patches) -> tuple[Tensor, Tensor]:
    """From the negative to the positive centroid, (B,) west and (B,) north, in Mm.

    NaN where one polarity has no pixel in the mask.
    """
    ends = []
    for flux in (p.bz.clamp(min=0), (-p.bz).clamp(min=0)):
        total = p.region.sum(flux)  # 0 / 0 = NaN where a polarity is missing
        ends.append((p.region.sum(flux * p.region.column) / total,
                     p.region.sum(flux * p.region.row) / total))  # fmt: skip
    (x_pos, y_pos), (x_neg, y_neg) = ends
    return (x_pos - x_neg) * p.megametres, (y_pos - y_neg) * p.megametres


def polsep(p: Patches) -> Tensor:
    """Distance between the flux-weighted centroids of positive and negative Br, in Mm."""
    return torch.hypot(*_axis(p))


def tilt(p: Patches) -> Tensor:
    """Angle of the line from the eastern to the western centroid, in degrees north of west.

    Between -90 and 90, whichever the leading polarity. Joy's law (leading
    polarity nearer to the equator) reads: negative in the north, positive in the south.
    """
    west, north = _axis(p)
    sign = torch.where(west < 0, -1.0, 1.0)
    return torch.rad2deg(torch.atan2(sign * north, sign * west))
