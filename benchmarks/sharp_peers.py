"""Two other ways to the SHARP keywords: per-pixel loops, and numpy. For `sharp_keywords.py`.

Both follow the formulas of Bobra et al. 2014 with the conventions of the published headers
(docs/physics.md) and give 20 keywords of one patch. `loops` computes as the published Python
script does, one pixel after the other with element access to numpy arrays, the 20 x 20 sum of
the potential included; `vectorised` is how one writes it with numpy and scipy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray
from scipy.signal import fftconvolve

MU0 = 1.2566370614e-6
DEPTH = 0.001
WINDOW = 10
SIGMA = 10 / 2.3548
Image = NDArray[np.float64]


@dataclass(frozen=True)
class Patch:
    """One patch: fields in gauss, which pixels count, the pixel in arcsec and m."""

    bx: Image
    by: Image
    bz: Image
    los: Image
    mask: NDArray[np.bool_]
    harp: NDArray[np.bool_]
    arcsec: float
    metres: float


def finish(p: Patch, sums: dict[str, float]) -> dict[str, float]:
    """Keywords from sums over pixels."""
    area = (100 * p.metres) ** 2
    current = 1e-4 / MU0
    count = sums["n"]
    return {
        "USFLUX": sums["flux"] * area,
        "MEANGAM": sums["gamma"] / sums["n_gamma"],
        "MEANGBT": sums["gbt"] / sums["n_gbt"],
        "MEANGBZ": sums["gbz"] / sums["n_gbz"],
        "MEANGBH": sums["gbh"] / sums["n_gbh"],
        "MEANJZD": sums["jz"] / count * current * 1e3 / p.metres,
        "TOTUSJZ": sums["abs_jz"] * p.metres * current,
        "MEANALP": sums["jzbz"] / sums["bz2"] * 1e6 / p.metres,
        "MEANJZH": sums["jzbz"] / sums["n_twist"] / p.metres,
        "TOTUSJH": sums["abs_jzbz"] / p.metres,
        "ABSNJZH": abs(sums["jzbz"]) / p.metres,
        "SAVNCPP": (abs(sums["jz_up"]) + abs(sums["jz_down"]))
        * current * p.metres / p.arcsec**2,
        "MEANPOT": sums["energy"] / (8 * math.pi * count),
        "TOTPOT": sums["energy"] * area / (8 * math.pi),
        "MEANSHR": sums["shear"] / count,
        "SHRGT45": 100 * sums["sheared"] / count,
        "R_VALUE": math.log10(sums["r"]) if sums["r"] >= 1 else 0.0,
        "USFLUXL": sums["flux_los"] * area,
        "MEANGBL": sums["gbl"] / sums["n_gbl"],
        "CMASKL": sums["n_los"],
    }  # fmt: skip


def _loop_differences(image: Image) -> tuple[Image, Image]:
    height, width = image.shape
    dx, dy = np.zeros_like(image), np.zeros_like(image)
    for j in range(1, height - 1):
        for i in range(1, width - 1):
            dx[j, i] = 0.5 * (image[j, i + 1] - image[j, i - 1])
            dy[j, i] = 0.5 * (image[j + 1, i] - image[j - 1, i])
    return dx, dy


def _loop_potential(bz: Image) -> tuple[Image, Image]:
    height, width = bz.shape
    kernel = np.zeros((2 * WINDOW, 2 * WINDOW))
    for j in range(2 * WINDOW):
        for i in range(2 * WINDOW):
            away = (j - WINDOW) ** 2 + (i - WINDOW) ** 2 + DEPTH**2
            kernel[j, i] = DEPTH / math.sqrt(away)
    phi = np.zeros_like(bz)
    for j in range(height):
        for i in range(width):
            total = 0.0
            for v in range(max(0, j - WINDOW), min(height, j + WINDOW)):
                for u in range(max(0, i - WINDOW), min(width, i + WINDOW)):
                    total += bz[v, u] * kernel[v - j + WINDOW, u - i + WINDOW]
            phi[j, i] = total
    dx, dy = _loop_differences(phi)
    return -dx, -dy


def _loop_gradient(
    image: Image, where: NDArray[np.bool_], skip: bool = True
) -> tuple[float, float]:
    dx, dy = _loop_differences(image)
    total, count = 0.0, 0
    height, width = image.shape
    for j in range(1, height - 1):
        for i in range(1, width - 1):
            if not where[j, i] or (skip and abs(dx[j, i] + dy[j, i]) < 1e-3):
                continue
            total += math.sqrt(dx[j, i] ** 2 + dy[j, i] ** 2)
            count += 1
    return total, count


def _near(side: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """3 x 3 dilation by the box that the script writes off centre, edges mirrored."""
    wide = np.pad(side, 4, mode="symmetric")
    first = [round(size / 2) - size // 2 for size in side.shape]
    shifts = [(first[0] + v, first[1] + u) for v in range(3) for u in range(3)]
    height, width = side.shape
    parts = [wide[4 - v : 4 - v + height, 4 - u : 4 - u + width] for v, u in shifts]
    return np.logical_or.reduce(parts)


def _r_sum(p: Patch) -> float:
    """Weighted sum of Schrijver's R; its images are small, so both peers share it."""
    factor = round(2 / p.arcsec)
    height, width = (-(-size // factor) for size in p.los.shape)
    padded = np.zeros((height * factor, width * factor))
    padded[: p.los.shape[0], : p.los.shape[1]] = p.los
    binned = padded.reshape(height, factor, width, factor).mean(axis=(1, 3))
    line = _near(binned > 150) & _near(-binned > 150)
    weight = ndi.gaussian_filter(line.astype(float), SIGMA)
    return float((weight * abs(binned)).sum())


def loops(p: Patch) -> dict[str, float]:
    """Pixel after pixel, in plain Python."""
    height, width = p.bz.shape
    s = dict.fromkeys(
        ("n", "flux", "gamma", "n_gamma", "jz", "abs_jz", "jzbz", "abs_jzbz", "bz2", "n_twist",
         "jz_up", "jz_down", "energy", "shear", "sheared", "flux_los", "n_los"), 0.0,
    )  # fmt: skip
    bh, strength, jz = (np.zeros_like(p.bz) for _ in range(3))
    for j in range(height):
        for i in range(width):
            bh[j, i] = math.sqrt(p.bx[j, i] ** 2 + p.by[j, i] ** 2)
            strength[j, i] = math.sqrt(p.bx[j, i] ** 2 + p.by[j, i] ** 2 + p.bz[j, i] ** 2)
    for j in range(1, height - 1):
        for i in range(1, width - 1):
            across = 0.5 * (p.by[j, i + 1] - p.by[j, i - 1])
            jz[j, i] = across - 0.5 * (p.bx[j + 1, i] - p.bx[j - 1, i])
    px, py = _loop_potential(p.bz)
    for j in range(height):
        for i in range(width):
            if p.harp[j, i]:
                s["flux_los"] += abs(p.los[j, i])
                s["n_los"] += 1
            if not p.mask[j, i]:
                continue
            bx, by, bz, current = p.bx[j, i], p.by[j, i], p.bz[j, i], jz[j, i]
            s["n"] += 1
            s["flux"] += abs(bz)
            if bh[j, i] >= 100 and bz != 0:
                s["gamma"] += math.degrees(math.atan(bh[j, i] / abs(bz)))
                s["n_gamma"] += 1
            s["jz"] += current
            s["abs_jz"] += abs(current)
            s["jz_up" if bz > 0 else "jz_down"] += current
            if abs(current) > 1e-3 and abs(bz) > 1e-3:
                s["jzbz"] += current * bz
                s["abs_jzbz"] += abs(current * bz)
                s["bz2"] += bz**2
                s["n_twist"] += 1
            s["energy"] += (bx - px[j, i]) ** 2 + (by - py[j, i]) ** 2
            dot = bx * px[j, i] + by * py[j, i] + bz**2
            other = math.sqrt(px[j, i] ** 2 + py[j, i] ** 2 + bz**2)
            angle = math.degrees(math.acos(min(1.0, dot / (strength[j, i] * other))))
            s["shear"] += angle
            s["sheared"] += angle > 45
    for name, image, where in (("gbt", strength, p.mask), ("gbz", p.bz, p.mask),
                               ("gbh", bh, p.mask), ("gbl", p.los, p.harp)):  # fmt: skip
        s[name], s["n_" + name] = _loop_gradient(image, where, skip=name != "gbl")
    s["r"] = _r_sum(p)
    return finish(p, s)


def _differences(image: Image) -> tuple[Image, Image]:
    dx, dy = np.zeros_like(image), np.zeros_like(image)
    dx[1:-1, 1:-1] = 0.5 * (image[1:-1, 2:] - image[1:-1, :-2])
    dy[1:-1, 1:-1] = 0.5 * (image[2:, 1:-1] - image[:-2, 1:-1])
    return dx, dy


def vectorised(p: Patch) -> dict[str, float]:
    """Whole images at a time, with numpy and scipy."""
    inner = np.zeros_like(p.mask)
    inner[1:-1, 1:-1] = True
    bh = np.hypot(p.bx, p.by)
    strength = np.hypot(bh, p.bz)
    jz = _differences(p.by)[0] - _differences(p.bx)[1]
    step = np.arange(-WINDOW, WINDOW)
    kernel = DEPTH / np.sqrt(step[:, None] ** 2 + step**2 + DEPTH**2)
    phi = fftconvolve(p.bz, kernel[::-1, ::-1])
    phi = phi[WINDOW - 1 : WINDOW - 1 + p.bz.shape[0], WINDOW - 1 : WINDOW - 1 + p.bz.shape[1]]
    dx, dy = _differences(phi)
    bx, by, bz, current, m = p.bx[p.mask], p.by[p.mask], p.bz[p.mask], jz[p.mask], p.mask
    px, py = -dx[m], -dy[m]
    inclined = (bh[m] >= 100) & (bz != 0)
    twisted = (abs(current) > 1e-3) & (abs(bz) > 1e-3)
    product = (current * bz)[twisted]
    cosine = (bx * px + by * py + bz**2) / (strength[m] * np.sqrt(px**2 + py**2 + bz**2))
    angle = np.degrees(np.arccos(np.minimum(cosine, 1)))
    s = {
        "n": m.sum(), "flux": abs(bz).sum(),
        "gamma": np.degrees(np.arctan(bh[m][inclined] / abs(bz[inclined]))).sum(),
        "n_gamma": inclined.sum(), "jz": current.sum(), "abs_jz": abs(current).sum(),
        "jzbz": product.sum(), "abs_jzbz": abs(product).sum(), "bz2": (bz[twisted] ** 2).sum(),
        "n_twist": twisted.sum(), "jz_up": current[bz > 0].sum(),
        "jz_down": current[bz <= 0].sum(), "energy": ((bx - px) ** 2 + (by - py) ** 2).sum(),
        "shear": angle.sum(), "sheared": (angle > 45).sum(),
        "flux_los": abs(p.los[p.harp]).sum(), "n_los": p.harp.sum(), "r": _r_sum(p),
    }  # fmt: skip
    for name, image, where in (("gbt", strength, m), ("gbz", p.bz, m), ("gbh", bh, m),
                               ("gbl", p.los, p.harp)):  # fmt: skip
        dx, dy = _differences(image)
        counts = where & inner
        if name != "gbl":
            counts = counts & (abs(dx + dy) >= 1e-3)
        s[name], s["n_" + name] = np.hypot(dx, dy)[counts].sum(), counts.sum()
    return {name: float(value) for name, value in finish(p, s).items()}
