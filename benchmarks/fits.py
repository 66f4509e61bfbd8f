"""From RICE-compressed FITS to images a quarter as wide: sunpipe and the library chains in one run.

Two files of 4096 x 4096 pixels are made: AIA-like (int16, 6.8 bits per pixel)
and HMI-like (int32, BSCALE 0.1, BLANK off the disc, 4.8 bits per pixel), both in
row tiles and with checksums. Real files can be named as well. Every contender
starts from the path and ends with float32 means of 4 x 4 pixels (of fewer where
the sides are no multiples); all take turns in one process, on one core, and CPU
time is counted. Before that each is checked: stored integers equal to the bit,
means equal to those of float64 arithmetic.

sunpipe's time includes its checksums, which no other contender verifies.

    OMP_NUM_THREADS=1 python benchmarks/fits.py --out benchmarks/results/fits.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numba import njit

from sunpipe.downsample import block_mean
from sunpipe.files import write_json
from sunpipe.fits import last_image, read_segment
from sunpipe.fitspixels import reduced_pixels
from sunpipe.fitsreduced import read_reduced
from sunpipe.provenance import provenance
from sunpipe.rice import bands, rice_image

try:
    import cv2
    import fitsio
except ImportError as missing:
    sys.exit(f"{missing.name} is missing; install the peers with: pip install 'sunpipe[bench]'")

PEERS = ("numba", "fitsio", "opencv-python-headless")
SIDE = 4096
BLANK = -(2**31)
Array = np.ndarray[Any, Any]
Chain = Callable[[Path], Any]


def radius() -> Array:
    """Distance from the centre in solar radii, on HMI's detector."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) - (SIDE - 1) / 2
    return np.hypot(x, y) / (0.46 * SIDE)


def texture(rng: np.random.Generator, scale: float) -> Array:
    """Noise of unit variance, smooth over `scale` pixels."""
    noise = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE), np.float32), (0, 0), scale)
    return noise / noise.std()


def aia_like(seed: int = 0) -> Array:
    """Counts as int16: a structured corona that fades off the limb, photon and read noise."""
    rng, distance = np.random.default_rng(seed), radius() / 0.85
    mean = np.where(distance < 1, 300, 300 * np.exp(4 - 4 * distance) + 3)
    mean *= np.exp(0.6 * texture(rng, 30) + 0.5 * texture(rng, 6))
    counts = rng.normal(mean, np.sqrt(mean + 4))
    return np.clip(np.rint(counts), -10, 16000).astype(np.int16)


def hmi_like(seed: int = 1) -> Array:
    """Field as int32 in tenths of a gauss: network, some strong regions, noise; BLANK off disc."""
    rng = np.random.default_rng(seed)
    field = 6 * texture(rng, 4) + 40 * texture(rng, 40) ** 3 + 2 * texture(rng, 1)
    stored = np.rint(field / 0.1).astype(np.int32)
    stored[radius() > 1] = BLANK
    return stored


def write(path: Path, stored: Array, **cards: float) -> None:
    hdu = fits.CompImageHDU(stored, compression_type="RICE_1", tile_shape=(1, SIDE))
    hdu.header.update(cards)
    hdu.writeto(path, checksum=True)


@njit(error_model="numpy", nogil=True)
def memory_bound_mean(image, factor, blank):  # type: ignore[no-untyped-def]
    """The best mean for a library chain: NaN-aware (or BLANK-aware), one pass over any array."""
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    out = np.empty((rows, columns), np.float32)
    total, valid = np.empty(image.shape[1]), np.empty(image.shape[1], np.int32)
    for y in range(rows):
        total[:] = 0
        valid[:] = 0
        for k in range(y * factor, (y + 1) * factor):
            row = image[k]
            for x in range(image.shape[1]):
                good = np.isfinite(row[x]) and row[x] != blank
                total[x] += float(row[x]) if good else 0.0
                valid[x] += good
        for x in range(columns):
            some, number = 0.0, 0
            for k in range(x * factor, (x + 1) * factor):
                some += total[k]
                number += valid[k]
            out[y, x] = some / number if 2 * number >= factor * factor else np.nan
    return out


def of_astropy(path: Path) -> Array:
    with fits.open(path, memmap=False) as hdus:
        return hdus[-1].data


def of_astropy_raw(path: Path) -> tuple[Array, dict[str, Any]]:
    with fits.open(path, memmap=False, do_not_scale_image_data=True) as hdus:
        return hdus[-1].data, hdus[-1].header


def of_fitsio(path: Path) -> Array:
    with fitsio.FITS(path) as file:
        return file[-1].read()


def shrink(image: Array, factor: int) -> Array:
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return cv2.resize(image.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA)


def reshape_mean(image: Array, factor: int) -> Array:
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    return image.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float32)


def native(image: Array) -> Array:
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def raw_and_mean(path: Path, factor: int) -> Array:
    stored, header = of_astropy_raw(path)
    means = memory_bound_mean(native(stored), factor, header.get("BLANK", BLANK - 1))
    return means * np.float32(header.get("BSCALE", 1)) + np.float32(header.get("BZERO", 0))


def peers(factor: int) -> dict[str, Chain]:
    return {
        "astropy + reshape.mean": lambda path: reshape_mean(of_astropy(path), factor),
        "astropy + cv2 INTER_AREA": lambda path: shrink(of_astropy(path), factor),
        "astropy + numba mean": lambda path: memory_bound_mean(
            native(of_astropy(path)), factor, np.nan
        ),
        "astropy unscaled + numba mean": lambda path: raw_and_mean(path, factor),
        "fitsio + cv2 INTER_AREA": lambda path: shrink(of_fitsio(path), factor),
        "fitsio + numba mean": lambda path: memory_bound_mean(
            native(of_fitsio(path)), factor, np.nan
        ),
    }


def decode_only(path: Path) -> None:
    raw = path.read_bytes()
    unit, shape, _ = last_image(raw, path.name)
    image = rice_image(raw, unit, shape, path.name)
    assert image is not None
    for _ in bands(image):
        pass


def ours(factor: int) -> dict[str, Chain]:
    return {
        "sunpipe decode + checksum, no mean": decode_only,
        "sunpipe read_segment float32 + block_mean": lambda path: block_mean(
            read_segment(path, dtype="float32").data, factor
        )[0],
        "sunpipe read_reduced (fused)": lambda path: read_reduced(path, factor).data,
    }


def stored_integers(path: Path) -> Array:
    raw = path.read_bytes()
    unit, shape, _ = last_image(raw, path.name)
    image = rice_image(raw, unit, shape, path.name)
    if image is None:
        sys.exit(f"{path.name} is not in the form that the fast decoder covers")
    return np.concatenate([band.copy() for _, band in bands(image)])


def check(path: Path, factor: int, chains: dict[str, Chain]) -> dict[str, Any]:
    """Exactness before the mean, and of each chain's means; ends the run when ours are wrong."""
    stored, header = of_astropy_raw(path)
    equal = bool(np.array_equal(stored_integers(path), stored))
    masked = np.where(stored == header.get("BLANK", BLANK - 1), np.nan, stored.astype(float))
    truth, counts = block_mean(
        masked * header.get("BSCALE", 1.0) + header.get("BZERO", 0.0), factor
    )
    found: dict[str, Any] = {"integers_equal_astropy": equal, "bits_per_pixel": round(
        8 * path.stat().st_size / stored.size, 2), "pixels": list(stored.shape),
        "mixed_blocks": int(((counts > 0) & (counts < factor**2)).sum())}  # fmt: skip
    for name, chain in chains.items():
        means = chain(path)
        if means is None:
            continue
        both = np.isfinite(means) & np.isfinite(truth)
        found[name] = {
            "mask_equal": bool(np.array_equal(np.isfinite(means), np.isfinite(truth))),
            "largest_error": float(np.abs(means[both] - truth[both]).max()),
        }
    raw = path.read_bytes()
    unit, shape, _ = last_image(raw, path.name)
    means, number = reduced_pixels(raw, unit, shape, path.name, factor)
    exact = np.array_equal(number, counts) and np.allclose(
        means, truth, rtol=1e-6, atol=1e-6, equal_nan=True
    )
    if not (equal and exact):
        sys.exit(f"{path.name}: sunpipe's pixels are wrong; its times would mean nothing")
    return found


def measure(path: Path, chains: dict[str, Chain], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of each chain, in turns."""
    times: dict[str, list[float]] = {name: [] for name in chains}
    for _ in range(rounds):
        for name, chain in chains.items():
            begin = time.process_time()
            chain(path)
            times[name].append(1e3 * (time.process_time() - begin))
    return times


def table(label: str, times: dict[str, list[float]], names: list[str]) -> dict[str, Any]:
    """Print one file's table; ratios are of minima, against the fastest library chain."""
    best = min(names, key=lambda name: min(times[name]))
    print(f"\n{label}\n{'chain':44} {'min ms':>8} {'median':>8} {'times best peer':>16}")
    rows = {}
    for name, values in times.items():
        ratio = min(times[best]) / min(values)
        middle = statistics.median(times[best]) / statistics.median(values)
        print(f"{name:44} {min(values):8.1f} {statistics.median(values):8.1f} {ratio:16.2f}")
        rows[name] = {"cpu_ms_min": round(min(values), 2), "ratio_of_minima": round(ratio, 2),
                      "cpu_ms_median": round(statistics.median(values), 2),
                      "ratio_of_medians": round(middle, 2)}  # fmt: skip
    return {"best_peer": best, "chains": rows}


def processor() -> str:
    """Model of the CPU, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "unknown"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="real RICE files, beside the two made")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy's about cards such as R_VALUE = nan
        made = {label: Path(folder) / f"{label}.fits" for label in ("AIA-like", "HMI-like")}
        write(made["AIA-like"], aia_like())
        write(made["HMI-like"], hmi_like(), BSCALE=0.1, BLANK=BLANK)
        for label, path in (made | {path.name: path for path in options.files}).items():
            with fits.open(path) as hdus:
                shape = hdus[-1].shape
            factor = next(f for f in (4, 2, 1) if not (shape[0] % f or shape[1] % f))
            chains = peers(factor) | ours(factor)
            checked = check(path, factor, chains)
            times = measure(path, chains, options.rounds)
            bits = checked["bits_per_pixel"]
            heading = f"{label}: {shape[0]} x {shape[1]}, {bits} bits per pixel"
            results[label] = {"factor": factor, "exactness": checked} | table(
                heading + f", means of {factor} x {factor}", times, list(peers(factor))
            )
    if options.out:
        known = provenance()
        about = {key: known[key] for key in ("git", "versions", "cpus", "time")}
        about["versions"] |= {name: importlib.metadata.version(name) for name in PEERS}
        about["cpu"] = processor()
        names = " ".join(path.name for path in options.files)
        about["command"] = f"benchmarks/fits.py --rounds {options.rounds} {names}".strip()
        write_json(options.out, {"results": results, "provenance": about})


if __name__ == "__main__":
    main()
