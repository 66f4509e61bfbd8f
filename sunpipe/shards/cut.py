"""From a patch to the stored images of a dataset: the one definition for shards and for queries.

A patch keeps its physical scale: tiles are cut, or the patch is centred on a
canvas, and pixels are averaged by a whole factor; nothing is ever resampled.
The means are taken and rounded in the precision of the patch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]


def _starts(size: int, tile: int, stride: int) -> list[int]:
    if stride == 0 or size <= tile:
        return [(size - tile) // 2]
    starts = list(range(0, size - tile + 1, stride))
    if starts[-1] != size - tile:
        starts.append(size - tile)  # the far edge belongs to a tile as well
    return starts


def tile_grid(shape: tuple[int, int], tile: int, stride: int) -> NDArray[np.int64]:
    """Corners of the tiles of a patch.

    Parameters
    ----------
    shape : (H, W)
        Patch size in native pixels.
    tile : int
        Side of a tile in native pixels.
    stride : int
        Step between tiles; 0 means one tile, centred on the patch.

    Returns
    -------
    ndarray of int64, shape (M, 2)
        First row and column of each tile, in row order. Negative where the tile
        is larger than the patch: the missing border is padding. The last tile
        of an axis ends at the edge of the patch.
    """
    ys, xs = (_starts(size, tile, stride) for size in shape)
    return np.array([(y, x) for y in ys for x in xs], dtype=np.int64)


def cut(fields: Field, offset: tuple[int, int], tile: int) -> Field:
    """One tile of a patch, NaN outside the patch.

    Parameters
    ----------
    fields : ndarray (C, H, W)
    offset : (y, x)
        First row and column; may be negative.

    Returns
    -------
    ndarray (C, tile, tile)
    """
    out = np.full((fields.shape[0], tile, tile), np.nan, dtype=fields.dtype)
    y, x = int(offset[0]), int(offset[1])
    top, left = max(0, -y), max(0, -x)
    part = fields[:, max(0, y) : max(0, y + tile), max(0, x) : max(0, x + tile)]
    out[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return out


def reduce_field(fields: Field, factor: int) -> tuple[Field, NDArray[np.bool_]]:
    """Average blocks of `factor` x `factor` pixels over their valid pixels.

    A pixel is valid where all channels are finite. A stored pixel is valid
    where at least half of its native pixels are.

    Parameters
    ----------
    fields : ndarray (C, H, W)
        H and W are multiples of `factor`.

    Returns
    -------
    means : ndarray (C, H / factor, W / factor)
        In the units of `fields`, 0 where invalid.
    mask : bool ndarray (H / factor, W / factor)
        True where valid.
    """
    channels, height, width = fields.shape
    if height % factor or width % factor:
        raise ValueError(f"{height} x {width} pixels are not a multiple of {factor}")
    valid = np.isfinite(fields).all(axis=0)
    blocks = (channels, height // factor, factor, width // factor, factor)
    total = np.where(valid, fields, 0).reshape(blocks).sum(axis=(2, 4))
    count = valid.reshape(blocks[1:]).sum(axis=(1, 3))
    mask = 2 * count >= factor * factor
    means = np.where(mask, total / np.maximum(count, 1), 0).astype(fields.dtype, copy=False)
    return means, mask


def missing_share(
    mask: NDArray[np.bool_], offset: tuple[int, int], shape: tuple[int, int], reduce: int
) -> float:
    """Share of a tile's stored pixels that are invalid though they lie in the patch.

    What ``shard.max_nan_share`` limits: the padding about a small patch is no
    loss. For a tile inside the patch this is the share of the whole tile.

    Parameters
    ----------
    mask : bool ndarray (S, S)
        Of `reduce_field`.
    offset : (y, x)
        First native row and column of the tile; may be negative.
    shape : (H, W)
        Patch size in native pixels.
    reduce : int

    Returns
    -------
    float
        1 where no stored pixel lies in the patch.
    """
    patch = np.broadcast_to(np.float32(0), (1, *shape))
    _, inside = reduce_field(cut(patch, offset, len(mask) * reduce), reduce)
    return 1.0 - float(mask.sum()) / float(max(inside.sum(), 1))


def tile_flux(br: Field, pixel_cm: float, floor_gauss: float) -> float:
    """Unsigned flux of native pixels that stand above the noise, in Mx.

    Parameters
    ----------
    br : ndarray (H, W)
        Radial field, gauss, NaN where invalid.
    pixel_cm : float
        Side of a native pixel, cm.
    floor_gauss : float
        Weaker pixels do not count.
    """
    size = np.abs(br)
    return float(size[size >= floor_gauss].sum()) * pixel_cm**2


def cut_vector(
    fields: Field, tile: int, stride: int, reduce: int
) -> tuple[Field, NDArray[np.bool_], NDArray[np.int64]]:
    """All tiles of a patch, as a dataset with these settings holds them before `Stored.quantise`.

    Parameters
    ----------
    fields : ndarray (C, H, W)
        Native pixels, gauss, NaN where invalid.
    tile, stride, reduce : int
        As in `DatasetInfo`.

    Returns
    -------
    images : ndarray (M, C, tile / reduce, tile / reduce)
        Gauss, in the type of `fields`, 0 where invalid.
    masks : bool ndarray (M, tile / reduce, tile / reduce)
    offsets : int64 ndarray (M, 2)
        See `tile_grid`.
    """
    offsets = tile_grid((fields.shape[1], fields.shape[2]), tile, stride)
    side = tile // reduce
    images = np.empty((len(offsets), fields.shape[0], side, side), fields.dtype)
    masks = np.empty((len(offsets), side, side), bool)
    for number, (y, x) in enumerate(offsets):
        images[number], masks[number] = reduce_field(cut(fields, (y, x), tile), reduce)
    return images, masks, offsets
