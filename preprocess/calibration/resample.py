"""One interpolation from an image to a rotated, shifted, scaled one, aware of missing pixels.

A pixel of the result stands for an area of the image. Where that is about a
pixel, the result is the value there of a cubic B-spline, as
`aiapy.calibrate.register` takes it. Where it is more, the result is the mean of
n x n points spread over the area, n the area's side in pixels rounded up, so that
no pixel of the image is left out and the mean intensity is kept; beyond n = 2
neighbours average out and linear interpolation serves.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

CUBIC_POINTS = 2
# HMI at 0.6 arcsec per pixel is seen at 1.19 of its own pixels. Steps of 1.25 sample up to 0.4
# cycles per pixel; HMI's 14 cm aperture passes nothing beyond 0.55 and little near it.
ONE_POINT_SIDE = 1.25
SLACK = 0.02  # a side this little above a whole number is not rounded up
LEAST_SIDE = 4  # pixels that a cubic spline needs


def points_per_side(matrix: NDArray[np.float64]) -> int:
    """Points per side that a result's pixel needs, by its side in pixels of the image."""
    side = math.sqrt(abs(float(np.linalg.det(matrix))))
    return 1 if side <= ONE_POINT_SIDE else math.ceil(side - SLACK)


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
    matrix = np.ascontiguousarray(matrix, np.float64)
    offset = np.ascontiguousarray(offset, np.float64)
    if cubic and points == 1:
        kernels.sample_points(image, coefficients, whole, low, high, matrix, offset, out)
    else:
        kernels.sample_means(
            image, coefficients, cubic, whole, low, high, matrix, offset, points, out
        )
    return out
