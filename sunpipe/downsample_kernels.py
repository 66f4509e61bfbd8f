"""Means of blocks of pixels over their valid pixels, compiled."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, int32, int64, njit, uint64

from sunpipe.compiled import kernel


@njit
def _fold(sums, size, factor):  # type: ignore[no-untyped-def]
    """Sums of `factor` neighbours, in place: by halves while that goes, then one by one."""
    while factor % 2 == 0:
        size //= 2
        factor //= 2
        for x in range(size):
            sums[x] = sums[2 * x] + sums[2 * x + 1]
    if factor > 1:
        for x in range(size // factor):
            some = sums[uint64(x * factor)]
            for k in range(1, factor):
                some += sums[uint64(x * factor + k)]
            sums[x] = some


@kernel(
    "void(int32[:,::1],int64,float64,float64,boolean,int32,float32[:,::1],int32[:,::1],"
    "int64[::1],int32[::1])"
)
def mean_of_integers(stored, factor, scale, zero, masked, blank, means, counts, total, bad):  # type: ignore[no-untyped-def]
    """Block means of ``zero + scale * stored`` where `stored` is not `blank`.

    The sums are of integers, hence exact. `total` and `bad` (W,) are room to
    work in; `means` is NaN where less than half of a block is valid.
    """
    columns, size = stored.shape[1], factor * factor
    for y in range(means.shape[0]):
        total[:] = 0
        bad[:] = 0
        k = y * factor
        while k < (y + 1) * factor:
            if (y + 1) * factor - k >= 4:  # four rows at a time: the sums are read and written once
                a, b = stored[uint64(k)], stored[uint64(k + 1)]
                c, d = stored[uint64(k + 2)], stored[uint64(k + 3)]
                k += 4
                for x in range(columns):
                    total[x] += (int64(a[x]) + int64(b[x])) + (int64(c[x]) + int64(d[x]))
                if masked:
                    for x in range(columns):
                        bad[x] += (int32(a[x] == blank) + int32(b[x] == blank)) + (
                            int32(c[x] == blank) + int32(d[x] == blank)
                        )
            else:
                a = stored[uint64(k)]
                k += 1
                for x in range(columns):
                    total[x] += a[x]
                if masked:
                    for x in range(columns):
                        bad[x] += int32(a[x] == blank)
        _fold(total, columns, factor)
        if masked:
            _fold(bad, columns, factor)
        row, number = means[uint64(y)], counts[uint64(y)]
        for x in range(means.shape[1]):
            good = size - bad[x]
            mean = float64(total[x] - int64(bad[x]) * int64(blank)) / float64(good)
            number[x] = good
            row[x] = float32(zero + scale * mean) if 2 * good >= size else float32(np.nan)


@kernel(
    "void(float32[:,::1],int64,float32[:,::1],int32[:,::1],float64[::1],int32[::1])",
    "void(float64[:,::1],int64,float64[:,::1],int32[:,::1],float64[::1],int32[::1])",
)
def mean_of_floats(image, factor, means, counts, total, valid):  # type: ignore[no-untyped-def]
    """Block means over finite pixels, summed in float64; see `mean_of_integers`."""
    columns, size = image.shape[1], factor * factor
    for y in range(means.shape[0]):
        total[:] = 0
        valid[:] = 0
        for k in range(y * factor, (y + 1) * factor):
            a = image[uint64(k)]
            for x in range(columns):
                good = np.isfinite(a[x])
                total[x] += float64(a[x]) if good else 0.0
                valid[x] += int32(good)
        _fold(total, columns, factor)
        _fold(valid, columns, factor)
        row, number = means[uint64(y)], counts[uint64(y)]
        for x in range(means.shape[1]):
            number[x] = valid[x]
            row[x] = total[x] / valid[x] if 2 * valid[x] >= size else np.nan


@kernel(
    "void(int32[:,::1],float64,float64,boolean,int32,float32[:,::1])",
    "void(int32[:,::1],float64,float64,boolean,int32,float64[:,::1])",
)
def scaled(stored, scale, zero, masked, blank, values):  # type: ignore[no-untyped-def]
    """``stored * scale + zero`` in float64, rounded to the type of `values`; NaN where `blank`."""
    for y in range(stored.shape[0]):
        row, out = stored[uint64(y)], values[uint64(y)]
        if masked:
            for x in range(stored.shape[1]):
                out[x] = np.nan if row[x] == blank else row[x] * scale + zero
        else:
            for x in range(stored.shape[1]):
                out[x] = row[x] * scale + zero
