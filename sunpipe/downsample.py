"""Means of blocks of pixels over their valid pixels: the one way sunpipe makes images smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def check_factor(shape: tuple[int, int], factor: int) -> tuple[int, int]:
    """(H / factor, W / factor).

    Raises
    ------
    ValueError
        When `factor` is not a whole number of at least 1 that divides both sides.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | np.integer) or factor < 1:
        raise ValueError(f"factor = {factor!r} is not a whole number of at least 1")
    if shape[0] % factor or shape[1] % factor:
        raise ValueError(f"{shape[0]} x {shape[1]} pixels are not a multiple of {factor}")
    return shape[0] // int(factor), shape[1] // int(factor)


def block_mean(
    image: NDArray[np.floating], factor: int
) -> tuple[NDArray[np.floating], NDArray[np.int32]]:
    """Mean of the finite pixels of each block of `factor` x `factor`.

    Memory-bound: an image is read once. `np.nanmean` of a reshaped image gives
    the same numbers and takes many times as long.

    Parameters
    ----------
    image : float32 or float64 ndarray (H, W)
        H and W are multiples of `factor`. NaN and infinity are invalid.
    factor : int

    Returns
    -------
    means : ndarray (H / factor, W / factor)
        Of the type of `image`, summed in float64. NaN where less than half of
        the block is valid, the rule of `sunpipe.shards.cut.reduce_field`.
    counts : int32 ndarray (H / factor, W / factor)
        Valid pixels of each block.
    """
    from sunpipe.downsample_kernels import mean_of_floats

    image = np.ascontiguousarray(image)
    if image.ndim != 2 or image.dtype not in (np.float32, np.float64):
        raise ValueError(f"an image has two axes and float32 or float64, not {image.ndim} axes"
                         f" and {image.dtype}")  # fmt: skip
    shape = check_factor((image.shape[0], image.shape[1]), factor)
    means, counts = np.empty(shape, image.dtype), np.empty(shape, np.int32)
    width = image.shape[1]
    mean_of_floats(image, int(factor), means, counts, np.empty(width), np.empty(width, np.int32))
    return means, counts
