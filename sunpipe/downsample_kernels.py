"""Means of blocks of pixels over their valid pixels, compiled."""

from __future__ import annotations

import numpy as np
from numba import uint64

from sunpipe.compiled import kernel


@kernel(
    "void(int32[:,::1],int64,float64,float64,boolean,int32,float32[:,::1],int32[:,::1],"
    "int64[::1],int32[::1])"
)
def mean_of_integers(stored, factor, scale, zero, masked, blank, means, counts, total, valid):  # type: ignore[no-untyped-def]
    """Block means of ``zero + scale * stored`` where `stored` is not `blank`.

    The sums are of integers, hence exact. `total` and `valid` (W,) are room to
    work in; `means` is NaN where less than half of a block is valid.
    """
    columns = stored.shape[1]
    for y in range(means.shape[0]):
        total[:] = 0
        valid[:] = 0 if masked else factor
        for k in range(factor):
            row = stored[uint64(y * factor + k)]
            if masked:
                for x in range(columns):
                    good = row[x] != blank
                    total[x] += np.int64(row[x]) if good else np.int64(0)
                    valid[x] += np.int32(good)
            else:
                for x in range(columns):
                    total[x] += row[x]
        for x in range(means.shape[1]):
            some, number = np.int64(0), np.int32(0)
            for k in range(uint64(x * factor), uint64((x + 1) * factor)):
                some += total[k]
                number += valid[k]
            counts[y, x] = number
            if 2 * number >= factor * factor:
                means[y, x] = np.float32(zero + scale * (some / number))
            else:
                means[y, x] = np.float32(np.nan)


@kernel(
    "void(float32[:,::1],int64,float32[:,::1],int32[:,::1],float64[::1],int32[::1])",
    "void(float64[:,::1],int64,float64[:,::1],int32[:,::1],float64[::1],int32[::1])",
)
def mean_of_floats(image, factor, means, counts, total, valid):  # type: ignore[no-untyped-def]
    """Block means over finite pixels, summed in float64; see `mean_of_integers`."""
    for y in range(means.shape[0]):
        total[:] = 0
        valid[:] = 0
        for k in range(factor):
            row = image[uint64(y * factor + k)]
            for x in range(image.shape[1]):
                good = np.isfinite(row[x])
                total[x] += np.float64(row[x]) if good else 0.0
                valid[x] += np.int32(good)
        for x in range(means.shape[1]):
            some, number = 0.0, np.int32(0)
            for k in range(uint64(x * factor), uint64((x + 1) * factor)):
                some += total[k]
                number += valid[k]
            counts[y, x] = number
            means[y, x] = some / number if 2 * number >= factor * factor else np.nan


@kernel(
    "void(int32[:,::1],float64,float64,boolean,int32,float32[:,::1])",
    "void(int32[:,::1],float64,float64,boolean,int32,float64[:,::1])",
)
def scaled(stored, scale, zero, masked, blank, values):  # type: ignore[no-untyped-def]
    """``stored * scale + zero`` in float64, rounded to the type of `values`; NaN where `blank`."""
    for y in range(stored.shape[0]):
        row, out = stored[uint64(y)], values[uint64(y)]
        for x in range(stored.shape[1]):
            value = row[x] * scale + zero
            out[x] = np.nan if masked and row[x] == blank else value
