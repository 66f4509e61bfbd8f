"""Mirrors, quarter turns and polarity reversal of vector magnetograms.

Fields are tensors (..., 3, H, W) in the order Br, Bt, Bp. Columns run west
(+x = +Bp), rows run north (+y = -Bt, because Bt points south), Br is +z.

Which mirror: B is a pseudovector, so the mirror image of the currents that make
a field carries minus the mirrored arrows. The functions here reflect B as a
true vector (arrows mirrored, Br kept); follow with `reverse_polarity` for the
pseudovector mirror. Both are fields that the Sun could have: div B = 0 and the
force-free condition hold for B and for -B alike. Either mirror changes the sign
of Jz Br and so the handedness, which a quarter turn and a polarity reversal keep.

On the Sun only ``reverse_polarity(flip_vertical(B))`` also respects the laws of
Hale, Joy and the hemispheric helicity rule: it makes of a northern region a
southern one of the same cycle. `flip_vertical` alone gives one of the next cycle,
`flip_horizontal` and `rotate90` leave Joy's law.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def _check(fields: Tensor) -> None:
    if fields.ndim < 3 or fields.shape[-3] != 3:
        raise ValueError(f"fields must be (..., 3, H, W) as Br, Bt, Bp, not {tuple(fields.shape)}")


def _signed(fields: Tensor, signs: tuple[int, int, int]) -> Tensor:
    return fields * fields.new_tensor(signs).view(3, 1, 1)


def flip_horizontal(fields: Tensor) -> Tensor:
    """Mirror east and west: columns reversed, Bp negated.

    Parameters
    ----------
    fields : Tensor, (..., 3, H, W)
        Br, Bt, Bp.
    """
    _check(fields)
    return _signed(fields.flip(-1), (1, 1, -1))


def flip_vertical(fields: Tensor) -> Tensor:
    """Mirror north and south: rows reversed, Bt negated.

    Parameters
    ----------
    fields : Tensor, (..., 3, H, W)
        Br, Bt, Bp.
    """
    _check(fields)
    return _signed(fields.flip(-2), (1, -1, 1))


def rotate90(fields: Tensor, turns: int = 1) -> Tensor:
    """Turn the patch by `turns` quarters from west towards north, arrows included.

    One turn sends (x, y) to (-y, x): the new Bp is the old Bt, the new Bt is
    minus the old Bp. H and W change places for an odd number of turns.

    Parameters
    ----------
    fields : Tensor, (..., 3, H, W)
        Br, Bt, Bp.
    turns : int
        Any integer; negative turns go from north towards west.
    """
    _check(fields)
    turned = torch.rot90(fields, turns, dims=(-1, -2))
    br, bt, bp = turned.unbind(-3)
    for _ in range(turns % 4):
        bt, bp = -bp, bt
    return torch.stack((br, bt, bp), dim=-3)


def reverse_polarity(fields: Tensor) -> Tensor:
    """Negate all three components: north and south poles change places."""
    _check(fields)
    return -fields
