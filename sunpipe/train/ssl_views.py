"""Random views of a patch that physics allows, drawn in gauss before normalisation.

A view is mirrored, turned, reversed in polarity (with the signs of
`sunpipe.physics.symmetry`), partly hidden, shifted and made as noisy as HMI is.
It is never stretched: a pixel stays as many km, a gauss stays a gauss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sunpipe.errors import DataError
from sunpipe.physics import symmetry
from sunpipe.settings import SslSettings

Tensor = torch.Tensor
VECTOR = ("Br", "Bt", "Bp")
# Channels that are one number per pixel, and what polarity reversal does to it.
SCALARS = {"Br": -1, "magnetogram": -1, "mask": 1}
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


def check_channels(channels: Sequence[str]) -> None:
    """Refuse channels whose signs under mirrors and turns are not known.

    Raises
    ------
    DataError
        Unknown names, or a horizontal component without the other two.
    """
    names = list(channels)
    rest = [name for name in names if name not in VECTOR] if set(VECTOR) <= set(names) else names
    unknown = [name for name in rest if name not in SCALARS]
    if unknown or len(set(names)) != len(names):
        raise DataError(
            f"no mirror and rotation rules for the channels {', '.join(names)}: sunpipe ssl knows"
            f" Br, Bt, Bp together, and each of {', '.join(sorted(set(SCALARS) - {'mask'}))}"
        )


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
