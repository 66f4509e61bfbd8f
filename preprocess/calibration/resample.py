"""One interpolation from an image to a rotated, shifted, scaled one, aware of missing pixels.

A pixel of the result stands for an area of the image. It is the mean of n x n
points spread over that area, n the area's side in pixels rounded up, so that no
pixel of the image is left out and the mean intensity is kept. Up to n = 2 the
points are values of a cubic B-spline, as `aiapy.calibrate.register` takes them;
beyond, neighbours average out and linear interpolation serves.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CUBIC_POINTS = 2
SLACK = 0.02  # a side this little above a whole number is not rounded up
LEAST_SIDE = 4  # pixels that a cubic spline needs


def points_per_side(matrix: NDArray[np.float64]) -> int:
    """Points per side that a result's pixel needs: its side in pixels of the image, rounded up."""
    side = math.sqrt(abs(float(np.linalg.det(matrix))))
    return max(1, math.ceil(side - SLACK))


def resample(
    data: NDArray[np.floating],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    resolution: int,
) -> NDArray[np.float32]:
    """An image seen through an affine map.

    Parameters
    ----------
    data : float ndarray (H, W)
        NaN where there is no valid value; infinite values count as missing.
    matrix, offset : float64 ndarray (2, 2) and (2,)
        From pixels (x, y) of the result to pixels of `data`, as `target_map` gives.
    resolution : int
        Rows and columns of the result.

    Returns
    -------
    float32 ndarray (resolution, resolution)
        Intensities keep their unit (per pixel of `data`) and stay within the range
        of the valid ones. NaN where less than half of a pixel is covered by them.
    """
    from preprocess.calibration import kernels

    image = np.ascontiguousarray(data, dtype=np.float32)
    points = points_per_side(matrix)
    cubic = points <= CUBIC_POINTS and min(image.shape) >= LEAST_SIDE
    coefficients, whole, low, high = image, False, -math.inf, math.inf
    if cubic:
        coefficients = np.empty_like(image)
        missing, low, high = kernels.fill(image, coefficients)
        whole = missing == 0
        kernels.spline(coefficients)
    out = np.empty((resolution, resolution), np.float32)
    kernels.sample(
        image, coefficients, cubic, whole, low, high,
        np.ascontiguousarray(matrix, np.float64), np.ascontiguousarray(offset, np.float64),
        points, out,
    )  # fmt: skip
    return out
