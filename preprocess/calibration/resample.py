"""One interpolation from an image to a rotated, shifted, scaled one, aware of missing pixels.

A pixel of the result stands for an area of the image. Where that area is about
one pixel, the image is interpolated by cubic B-splines, as
`aiapy.calibrate.register` does; where it is larger, the result is the mean of
n x n points spread over the area, n the side of the area in pixels rounded up,
so that no pixel of the image is left out and the mean intensity is kept.

References
----------
Unser, Aldroubi & Eden (1993), IEEE Trans. Signal Processing 41, 821: the
recursive filter of cubic B-splines (pole sqrt(3) - 2, gain 6, mirrored ends).
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

POLE = math.sqrt(3.0) - 2.0
ENOUGH = 0.5  # least share of a result's pixel that valid pixels must cover
SMOOTH = 2  # from more points per side on, neighbours average out and linear steps suffice


@numba.njit(cache=True)
def _filter(c):  # type: ignore[no-untyped-def]
    """B-spline coefficients in place, along rows and then along columns."""
    rows, columns = c.shape
    reach = min(24, columns)
    for i in range(rows):
        total, power = 0.0, 1.0
        for k in range(reach):
            total += power * c[i, k]
            power *= POLE
        c[i, 0] = 6.0 * total
        for k in range(1, columns):
            c[i, k] = 6.0 * c[i, k] + POLE * c[i, k - 1]
        last = POLE / (POLE * POLE - 1.0) * (c[i, columns - 1] + POLE * c[i, columns - 2])
        c[i, columns - 1] = last
        for k in range(columns - 2, -1, -1):
            c[i, k] = POLE * (c[i, k + 1] - c[i, k])
    reach = min(24, rows)
    for j in range(columns):
        total, power = 0.0, 1.0
        for k in range(reach):
            total += power * c[k, j]
            power *= POLE
        c[0, j] = 6.0 * total
    for k in range(1, rows):
        for j in range(columns):
            c[k, j] = 6.0 * c[k, j] + POLE * c[k - 1, j]
    for j in range(columns):
        c[rows - 1, j] = POLE / (POLE * POLE - 1.0) * (c[rows - 1, j] + POLE * c[rows - 2, j])
    for k in range(rows - 2, -1, -1):
        for j in range(columns):
            c[k, j] = POLE * (c[k + 1, j] - c[k, j])


@numba.njit(cache=True)
def _fill(data, out):  # type: ignore[no-untyped-def]
    """Copy; a missing pixel gets the mean of its valid neighbours, or 0.

    Returns the number of missing pixels and the range of the valid ones.
    """
    rows, columns = data.shape
    missing = 0
    low, high = np.inf, -np.inf
    for i in range(rows):
        for j in range(columns):
            value = data[i, j]
            if not math.isfinite(value):
                missing += 1
                total, count = 0.0, 0
                for y in range(max(i - 1, 0), min(i + 2, rows)):
                    for x in range(max(j - 1, 0), min(j + 2, columns)):
                        if math.isfinite(data[y, x]):
                            total += data[y, x]
                            count += 1
                value = total / count if count else 0.0
            else:
                low, high = min(low, value), max(high, value)
            out[i, j] = value
    return missing, low, high


@numba.njit(cache=True, inline="always")
def _mirror(k, size):  # type: ignore[no-untyped-def]
    if k < 0:
        return -k
    return 2 * size - 2 - k if k >= size else k


@numba.njit(cache=True)
def _cubic(c, x, y):  # type: ignore[no-untyped-def]
    """Value of the spline with coefficients `c` at column x and row y."""
    rows, columns = c.shape
    j, i = math.floor(x), math.floor(y)
    t, s = x - j, y - i
    wx = ((1 - t) ** 3 / 6, 2 / 3 - t * t * (2 - t) / 2,
          2 / 3 - (1 - t) ** 2 * (1 + t) / 2, t**3 / 6)  # fmt: skip
    wy = ((1 - s) ** 3 / 6, 2 / 3 - s * s * (2 - s) / 2,
          2 / 3 - (1 - s) ** 2 * (1 + s) / 2, s**3 / 6)  # fmt: skip
    total = 0.0
    if 1 <= i < rows - 2 and 1 <= j < columns - 2:
        for m in range(4):
            line = c[i - 1 + m]
            total += wy[m] * (wx[0] * line[j - 1] + wx[1] * line[j]
                              + wx[2] * line[j + 1] + wx[3] * line[j + 2])  # fmt: skip
        return total
    for m in range(4):
        row = _mirror(i - 1 + m, rows)
        part = 0.0
        for n in range(4):
            part += wx[n] * c[row, _mirror(j - 1 + n, columns)]
        total += wy[m] * part
    return total


@numba.njit(cache=True)
def _linear(data, x, y):  # type: ignore[no-untyped-def]
    """Weighted sum of the four neighbours and the weight of the valid ones."""
    rows, columns = data.shape
    j, i = math.floor(x), math.floor(y)
    t, s = x - j, y - i
    total, weight = 0.0, 0.0
    for m in range(2):
        row = min(max(i + m, 0), rows - 1)
        wy = s if m else 1 - s
        for n in range(2):
            value = data[row, min(max(j + n, 0), columns - 1)]
            if math.isfinite(value):
                w = wy * (t if n else 1 - t)
                total += w * value
                weight += w
    return total, weight


@numba.njit(cache=True)
def _sample(data, coefficients, cubic, whole, span, matrix, offset, points, out):  # type: ignore[no-untyped-def]
    """Mean of points x points values in each pixel of `out`."""
    rows, columns = data.shape
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total, weight = 0.0, 0.0
            for a in range(points):
                v = i + (a + 0.5) / points - 0.5
                for b in range(points):
                    u = j + (b + 0.5) / points - 0.5
                    x = offset[0] + matrix[0, 0] * u + matrix[0, 1] * v
                    y = offset[1] + matrix[1, 0] * u + matrix[1, 1] * v
                    if x < -0.5 or y < -0.5 or x > columns - 0.5 or y > rows - 0.5:
                        continue
                    if cubic:
                        if whole:
                            w = 1.0
                        else:
                            _, w = _linear(data, x, y)
                        # A spline swings beyond a bright point; the camera saw no such value.
                        total += w * min(max(_cubic(coefficients, x, y), span[0]), span[1])
                    else:
                        value, w = _linear(data, x, y)
                        total += value
                    weight += w
            out[i, j] = total / weight if weight >= ENOUGH * points * points else np.nan


def points_per_side(matrix: NDArray[np.float64]) -> int:
    """Points per side that a result's pixel needs: its side in pixels of the image, rounded up."""
    side = math.sqrt(abs(float(np.linalg.det(matrix))))
    return max(1, math.ceil(side - 0.02))


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
    image = np.ascontiguousarray(data, dtype=np.float32)
    points = points_per_side(matrix)
    cubic = points <= SMOOTH and min(image.shape) >= 4
    coefficients, whole, span = image, False, (-np.inf, np.inf)
    if cubic:
        coefficients = np.empty_like(image)
        missing, *ends = _fill(image, coefficients)
        whole, span = missing == 0, (float(ends[0]), float(ends[1]))
        _filter(coefficients)
    out = np.empty((resolution, resolution), np.float32)
    _sample(
        image, coefficients, cubic, whole, span, np.ascontiguousarray(matrix), offset, points, out
    )
    return out
