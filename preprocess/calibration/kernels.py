"""Compiled loops over pixels: counting, cubic B-splines, affine sampling."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, int64, njit, uint64

from sunpipe.compiled import kernel

POLE = math.sqrt(3.0) - 2.0
REACH = 24  # pole^24 is 2e-14: what a row's start owes to its farther pixels
ENOUGH = 0.5  # least share of a result's pixel that valid pixels must cover


@kernel(
    "Tuple((float64,float64,int64,int64,int64))(float32[:,::1],float64,float64,float64,float64)",
    "Tuple((float64,float64,int64,int64,int64))(float64[:,::1],float64,float64,float64,float64)",
)
def count(data, x, y, radius, full):  # type: ignore[no-untyped-def]
    """Least and largest valid value; pixels in the circle, missing ones there, and those >= full.

    Without a valid value the ends are inf and -inf.
    """
    low, high = np.inf, -np.inf
    inside, missing, saturated = 0, 0, 0
    for i in range(data.shape[0]):
        for j in range(data.shape[1]):
            value = data[i, j]
            on_disk = (j - x) ** 2 + (i - y) ** 2 <= radius * radius
            inside += on_disk
            if math.isfinite(value):
                low, high = min(low, value), max(high, value)
                saturated += value >= full
            else:
                missing += on_disk
    return low, high, inside, missing, saturated


@kernel("Tuple((int64,float64,float64))(float32[:,::1],float32[:,::1])")
def fill(data, out):  # type: ignore[no-untyped-def]
    """Copy; a missing pixel gets the mean of its valid neighbours, or 0.

    Returns the number of missing pixels and the range of the valid ones.
    """
    rows, columns = data.shape
    missing, low, high = 0, np.inf, -np.inf
    for i in range(rows):
        for j in range(columns):
            value = data[i, j]
            if math.isfinite(value):
                low, high = min(low, value), max(high, value)
            else:
                missing += 1
                total, found = 0.0, 0
                for y in range(max(i - 1, 0), min(i + 2, rows)):
                    for x in range(max(j - 1, 0), min(j + 2, columns)):
                        if math.isfinite(data[y, x]):
                            total += data[y, x]
                            found += 1
                value = total / found if found else 0.0
            out[i, j] = value
    return missing, low, high


@kernel("void(float32[:,::1])")
def spline(c):  # type: ignore[no-untyped-def]
    """Cubic B-spline coefficients in place, along rows and then along columns.

    The recursive filter of IEEE Trans. Signal Processing 41, 821 (1993): one pole,
    gain 6, ends mirrored about the first and last pixel.
    """
    rows, columns = c.shape
    for i in range(rows):
        total, power = 0.0, 1.0
        for k in range(min(REACH, columns)):
            total += power * c[i, k]
            power *= POLE
        c[i, 0] = 6.0 * total
        for k in range(1, columns):
            c[i, k] = 6.0 * c[i, k] + POLE * c[i, k - 1]
        c[i, columns - 1] = (
            POLE / (POLE * POLE - 1.0) * (c[i, columns - 1] + POLE * c[i, columns - 2])
        )
        for k in range(columns - 2, -1, -1):
            c[i, k] = POLE * (c[i, k + 1] - c[i, k])
    for j in range(columns):
        total, power = 0.0, 1.0
        for k in range(min(REACH, rows)):
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


@njit
def _mirror(k, size):  # type: ignore[no-untyped-def]
    if k < 0:
        return -k
    return 2 * size - 2 - k if k >= size else k


@njit
def _weights(t):  # type: ignore[no-untyped-def]
    """Of the four coefficients around a point that lies t beyond the second, in float32."""
    t = float32(t)
    r = float32(1) - t
    sixth, half, most, two = float32(1 / 6), float32(0.5), float32(2 / 3), float32(2)
    return (
        r * r * r * sixth,
        most - half * t * t * (two - t),
        most - half * r * r * (two - r),
        t * t * t * sixth,
    )


@njit
def _cubic(c, x, y):  # type: ignore[no-untyped-def]
    """Value of the spline with coefficients `c` at column x and row y."""
    rows, columns = c.shape
    left, below = math.floor(x), math.floor(y)
    j, i = int64(left), int64(below)
    a0, a1, a2, a3 = _weights(x - left)
    b0, b1, b2, b3 = _weights(y - below)
    if i < 1 or j < 1 or i >= rows - 2 or j >= columns - 2:
        total = float32(0)
        for m, b in enumerate((b0, b1, b2, b3)):
            row = _mirror(i - 1 + m, rows)
            for n, a in enumerate((a0, a1, a2, a3)):
                total += b * a * c[row, _mirror(j - 1 + n, columns)]
        return total
    total = float32(0)
    for m, b in enumerate((b0, b1, b2, b3)):
        u, w = uint64(i - 1 + m), uint64(j - 1)  # unsigned: no counting from the end
        total += b * (a0 * c[u, w] + a1 * c[u, w + 1] + a2 * c[u, w + 2] + a3 * c[u, w + 3])
    return total


@njit
def _linear(data, x, y):  # type: ignore[no-untyped-def]
    """Weighted sum of the four neighbours, and the weight of the valid ones."""
    rows, columns = data.shape
    left, below = math.floor(x), math.floor(y)
    t, s = float32(x - left), float32(y - below)
    j, i = int64(left), int64(below)
    u, w = uint64(max(i, 0)), uint64(max(j, 0))
    v, z = uint64(min(i + 1, rows - 1)), uint64(min(j + 1, columns - 1))
    p, q = float32(1) - t, float32(1) - s
    k00, k01, k10, k11 = p * q, t * q, p * s, t * s
    c00, c01, c10, c11 = data[u, w], data[u, z], data[v, w], data[v, z]
    total = k00 * c00 + k01 * c01 + k10 * c10 + k11 * c11
    if math.isfinite(total):
        return total, float32(1)
    total, weight = float32(0), float32(0)
    for k, c in ((k00, c00), (k01, c01), (k10, c10), (k11, c11)):
        if math.isfinite(c):
            total += k * c
            weight += k
    return total, weight


@kernel(
    "void(float32[:,::1],float32[:,::1],boolean,float64,float64,float64[:,::1],float64[::1],"
    "float32[:,::1])"
)
def sample_points(data, coefficients, whole, low, high, matrix, offset, out):  # type: ignore[no-untyped-def]
    """The spline at the middle of each pixel of `out`, NaN where the image has no valid value."""
    rows, columns = data.shape
    least, most = float32(low), float32(high)
    for i in range(out.shape[0]):
        x0, y0 = offset[0] + matrix[0, 1] * i, offset[1] + matrix[1, 1] * i
        for j in range(out.shape[1]):
            x, y = x0 + matrix[0, 0] * j, y0 + matrix[1, 0] * j
            valid = x >= -0.5 and y >= -0.5 and x <= columns - 0.5 and y <= rows - 0.5
            if not valid or (not whole and _linear(data, x, y)[1] < ENOUGH):
                out[i, j] = np.nan
            else:
                # A spline swings beyond a bright point; the camera saw no such value.
                out[i, j] = min(max(_cubic(coefficients, x, y), least), most)


@kernel(
    "void(float32[:,::1],float32[:,::1],boolean,boolean,float64,float64,float64[:,::1],"
    "float64[::1],int64,float32[:,::1])"
)
def sample_means(data, coefficients, cubic, whole, low, high, matrix, offset, points, out):  # type: ignore[no-untyped-def]
    """Mean of points x points values in each pixel of `out`, NaN where too few are valid."""
    rows, columns = data.shape
    least, most = float32(low), float32(high)
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
                    if not cubic:
                        part, w = _linear(data, x, y)
                    else:
                        w = float32(1) if whole else _linear(data, x, y)[1]
                        part = w * min(max(_cubic(coefficients, x, y), least), most)
                    total += part
                    weight += w
            enough = weight > 0 and weight >= ENOUGH * points * points
            out[i, j] = total / weight if enough else np.nan
