"""Random views of a patch that physics allows, drawn in gauss or DN/s before normalisation.

A view is mirrored, turned, reversed in polarity (with the signs of
`sunpipe.physics.channels`), partly hidden, shifted and made as noisy as HMI is.
It is never stretched: a pixel stays as many km, a gauss stays a gauss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sunpipe.ssl_settings import SslSettings
from sunpipe.train.chance import Chance
from sunpipe.train.symmetries import apply_symmetries

Tensor = torch.Tensor


def shift(fields: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Move each patch by whole pixels, 0 where nothing was seen.

    Parameters
    ----------
    fields : Tensor, (B, C, H, W)
    dy, dx : Tensor of int64, (B,)
        Rows north and columns west that the content moves by.
    """
    batch, _, height, width = fields.shape
    device = fields.device
    rows = torch.arange(height, device=device)[None] - dy[:, None]
    columns = torch.arange(width, device=device)[None] - dx[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & (
        (columns >= 0) & (columns < width)
    )[:, None, :]  # fmt: skip
    each = torch.arange(batch, device=device)[:, None, None]
    source = fields.permute(0, 2, 3, 1)
    moved = source[
        each, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def window(fields: Tensor, share: float, draw: Sequence[Tensor]) -> Tensor:
    """Hide all but a random square of `share` to 1 of the side; it stays where it is.

    Parameters
    ----------
    fields : Tensor, (B, C, H, W)
    share : float
        Of the side, at least.
    draw : sequence of three Tensor, (B,)
        From [0, 1): size and place of each square.
    """
    _, _, height, width = fields.shape
    size, y, x = (one[:, None] for one in draw)
    side = share + (1 - share) * size
    kept = []
    for length, start in ((height, y), (width, x)):
        first = torch.floor(start * (length - side * length) + 0.5)
        place = torch.arange(length, device=fields.device)[None]
        kept.append((place >= first) & (place < first + torch.ceil(side * length)))
    return fields * (kept[0][:, None, :, None] & kept[1][:, None, None, :])


def draw_view(
    fields: Tensor, mask: Tensor, channels: Sequence[str], units: Sequence[str],
    settings: SslSettings, chance: Chance,
) -> Tensor:  # fmt: skip
    """One random view of each patch.

    Parameters
    ----------
    fields : Tensor, (B, C, H, H)
        Physical units, 0 where invalid.
    mask : Tensor of bool, (B, H, H)
        True where valid; noise is added only there.
    channels, units : sequence of str
        Of the C channels, checked by `sunpipe.train.symmetries.check_symmetries`.
        Noise is HMI's, so that intensities get none.
    settings : SslSettings
        `symmetries`, `crop`, `shift` and `noise_g` are used.
    chance : Chance
        Of these B samples, and of this view: a patch has the same view at any
        number of ranks.

    Returns
    -------
    Tensor, (B, C, H, H)
        Physical units, 0 where nothing is seen.
    """
    _, _, height, width = fields.shape
    # The mask travels as one more channel, so that it is moved as the field is.
    view = torch.cat((fields, mask[:, None].to(fields.dtype)), dim=1)
    view = apply_symmetries(view, (*channels, "mask"), settings.symmetries, chance)
    if settings.crop < 1:
        draw = [chance.uniform(f"window.{what}") for what in ("size", "y", "x")]
        view = window(view, settings.crop, draw)
    far_y, far_x = int(settings.shift * height), int(settings.shift * width)
    if far_y or far_x:
        dy = chance.integers("shift.y", -far_y, far_y + 1)
        dx = chance.integers("shift.x", -far_x, far_x + 1)
        view = shift(view, dy, dx)
    seen, valid = view[:, :-1], view[:, -1:]
    places = [place for place, unit in enumerate(units) if unit == "Gauss"]
    if settings.noise_g and places:
        noise = chance.maps("noise", len(places), height, width)
        seen = seen.clone()
        seen[:, places] += settings.noise_g * noise * valid
    return seen
