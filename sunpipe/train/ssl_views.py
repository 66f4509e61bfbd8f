"""Random views of a patch that physics allows, drawn in gauss before normalisation.

A view is mirrored, turned, reversed in polarity (with the signs of
`sunpipe.physics.channels`), partly hidden, shifted and made as noisy as HMI is.
It is never stretched: a pixel stays as many km, a gauss stays a gauss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sunpipe.physics.channels import apply_symmetry
from sunpipe.ssl_settings import SslSettings

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


def window(fields: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Hide all but a random square of `share` to 1 of the side; it stays where it is."""
    batch, _, height, width = fields.shape
    device = fields.device
    draw = torch.rand(3, batch, 1, generator=generator, device=device)
    side = share + (1 - share) * draw[0]
    kept = []
    for length, start in ((height, draw[1]), (width, draw[2])):
        first = torch.floor(start * (length - side * length) + 0.5)
        place = torch.arange(length, device=device)[None]
        kept.append((place >= first) & (place < first + torch.ceil(side * length)))
    return fields * (kept[0][:, None, :, None] & kept[1][:, None, None, :])


def random_view(
    fields: Tensor,
    mask: Tensor,
    channels: Sequence[str],
    settings: SslSettings,
    generator: torch.Generator,
) -> Tensor:
    """One random view of each patch.

    Parameters
    ----------
    fields : Tensor, (B, C, H, H)
        Gauss, 0 where invalid.
    mask : Tensor of bool, (B, H, H)
        True where valid; noise is added only there.
    channels : sequence of str
        Names of the C channels.
    settings : SslSettings
        `symmetries`, `crop`, `shift` and `noise_g` are used.
    generator : torch.Generator
        The only source of randomness.

    Returns
    -------
    Tensor, (B, C, H, H)
        Gauss, 0 where nothing is seen.
    """
    batch, _, height, width = fields.shape
    device = fields.device
    names = (*channels, "mask")
    # The mask travels as one more channel, so that it is moved as the field is.
    view = torch.cat((fields, mask[:, None].to(fields.dtype)), dim=1)
    for name in settings.symmetries:
        chosen = torch.rand(batch, 1, 1, 1, generator=generator, device=device) < 0.5
        view = torch.where(chosen, apply_symmetry(view, names, name), view)
    if settings.crop < 1:
        view = window(view, settings.crop, generator)
    far_y, far_x = int(settings.shift * height), int(settings.shift * width)
    if far_y or far_x:
        dy = torch.randint(-far_y, far_y + 1, (batch,), generator=generator, device=device)
        dx = torch.randint(-far_x, far_x + 1, (batch,), generator=generator, device=device)
        view = shift(view, dy, dx)
    seen, valid = view[:, :-1], view[:, -1:]
    if settings.noise_g:
        noise = torch.randn(seen.shape, generator=generator, device=device, dtype=seen.dtype)
        seen = seen + settings.noise_g * noise * valid
    return seen
