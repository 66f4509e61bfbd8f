"""SHARP keywords per second and core, beside plain loops and numpy, on HARP 377.

Run from the checkout::

    python benchmarks/sharp_keywords.py --out benchmarks/results/sharp_keywords.json

All measure the bundled patch (377 x 744 pixels, 45,703 of them counted) in the conventions of the
headers, on one thread, from arrays in memory to numbers. Ours gives 26 quantities, the peers 20.
Before anything is timed their values are compared. The loops run once: they take a minute.
The other ways take turns for some rounds; medians of CPU time are told, which other work on
the machine disturbs less than the clock's.

- ``loops``: per pixel in Python, as the published script computes (`sharp_peers.loops`);
- ``numpy``: whole images with numpy and scipy (`sharp_peers.vectorised`);
- ``batch 1``, ``batch 8``: `sunpipe.physics.measure`, milliseconds per patch;
- ``sharp_keywords``: the same with header, masks and reasons, batch 1, float64;
- ``floor``: what cannot be left out as long as the images are float64: read the seven
  images once, one FFT there and back of the padded patch.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sharp_peers import Patch, loops, vectorised
from sunpipe.files import write_json
from sunpipe.fits import read_segment, read_vector
from sunpipe.physics import measure, sharp_keywords
from sunpipe.physics.geometry import card, pixel_size_cm
from sunpipe.physics.mask import sharp_mask
from sunpipe.physics.measurement import FORMULAS, evaluate, make_patches
from sunpipe.provenance import git_revision

SAMPLES = Path(__file__).resolve().parents[1] / "sunpipe/samples"
PREFIX = "hmi.sharp_cea_720s.377.20110215_020000_TAI"
ROUNDS = 15
BATCH = 8
AGREE = 2e-6  # relative
AGREE_SINGLE = 5e-5  # in float32 one pixel more or less may lie above 45 degrees
STAGES = {
    "potential field and shear": ("MEANPOT", "TOTPOT", "MEANSHR", "SHRGT45"),
    "R": ("R_VALUE",),
    "gradients": ("MEANGBT", "MEANGBZ", "MEANGBH"),
    "line of sight": ("USFLUXL", "MEANGBL", "CMASKL"),
    "currents": ("MEANJZD", "TOTUSJZ", "MEANALP", "MEANJZH", "TOTUSJH", "ABSNJZH", "SAVNCPP"),
}


def load() -> tuple[dict[str, Any], Any]:
    """Arrays of HARP 377, and its header."""
    files = {path.name.split(".")[-2]: path for path in SAMPLES.glob(PREFIX + ".*.fits")}
    record = read_vector(*(files[name] for name in ("Br", "Bt", "Bp")))
    maps = {name: np.asarray(read_segment(files[name]).data, np.float64)
            for name in ("bitmap", "conf_disambig", "magnetogram")}  # fmt: skip
    return {"fields": np.asarray(record.fields, np.float64), **maps}, record.header


def tensors(
    data: dict[str, Any], header: Any, count: int, dtype: torch.dtype
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `make_patches`: `count` copies of the patch."""

    def batch(array: Any) -> torch.Tensor:
        return torch.tensor(array)[None].repeat(count, *[1] * array.ndim)

    bitmap = batch(data["bitmap"])
    number = {
        "pixel": pixel_size_cm(header), "scale": card(header, "RSUN_REF") / card(header, "RSUN_OBS")
    }  # fmt: skip
    length, scale = (torch.full((count,), x, dtype=torch.float64) for x in number.values())
    mask = sharp_mask(bitmap, batch(data["conf_disambig"]))
    maps = (mask, batch(data["magnetogram"]).to(dtype), bitmap >= 30, bitmap == 34)
    return (batch(data["fields"]).to(dtype), length, scale, "jsoc", *maps), {"dtype": dtype}


def ours(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, torch.Tensor]:
    fields, length, scale, convention, mask, los, los_mask, active = arguments
    return measure(
        fields, length, mask, convention=convention, los=los, los_mask=los_mask, active=active,
        metres_per_arcsec=scale, **options,
    )  # fmt: skip


def timed(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def floor(data: dict[str, Any]) -> Callable[[], None]:
    """Read the images once; one FFT of the padded patch there and back."""
    images = [torch.tensor(array) for array in data.values()]
    shape = (400, 768)

    def call() -> None:
        for image in images:
            image.sum()
        torch.fft.irfft2(torch.fft.rfft2(images[0][0], s=shape), s=shape)

    return call


def shares(arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, float]:
    """Share of each group of quantities in one measurement, medians."""
    found: dict[str, list[float]] = {"masks and valid pixels": [], **{n: [] for n in STAGES}}
    found["the rest"] = []
    for _ in range(ROUNDS):
        started = time.process_time()
        patches = make_patches(*arguments, **options)
        _ = (patches.region.index, patches.region.inner, patches.los_region)
        found["masks and valid pixels"].append(time.process_time() - started)
        rest = set(FORMULAS)
        for stage, names in STAGES.items():
            found[stage].append(sum(timed(partial(evaluate, patches, name)) for name in names))
            rest -= set(names)
        found["the rest"].append(sum(timed(partial(evaluate, patches, name)) for name in rest))
    middle = {stage: statistics.median(times) for stage, times in found.items()}
    return {stage: round(value / sum(middle.values()), 3) for stage, value in middle.items()}


def farthest(one: dict[str, float], other: dict[str, float]) -> tuple[str, float]:
    """The keyword in which two results differ most, relative."""
    off = {name: abs(other[name] / value - 1) for name, value in one.items()}
    name = max(off, key=lambda key: off[key])
    return name, off[name]


def main() -> None:
    """Measure, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, header = load()
    sets = {
        f"{str(dtype)[6:]}, batch {count}": (tensors(data, header, count, dtype), count)
        for count in (1, BATCH)
        for dtype in (torch.float64, torch.float32)
    }
    values = {name: {key: float(value[0]) for key, value in ours(*arguments).items()}
              for name, (arguments, _) in sets.items()}  # fmt: skip
    metres = pixel_size_cm(header) / 100
    scale = card(header, "RSUN_REF") / card(header, "RSUN_OBS")
    br, bt, bp = data["fields"]
    harp = data["bitmap"] >= 30
    mask = harp & (data["conf_disambig"] >= 70)
    patch = Patch(bp, -bt, br, data["magnetogram"], mask, harp, metres / scale, metres)
    truth = values["float64, batch 1"]
    quick = vectorised(patch)
    started = time.process_time()
    slow = loops(patch)
    loop_seconds = time.process_time() - started
    differences = {"loops": farthest(slow, truth), "numpy": farthest(quick, truth)}
    differences |= {name: farthest(truth, value) for name, value in values.items()}
    for name, (keyword, off) in differences.items():
        if not off < (AGREE_SINGLE if name.startswith("float32") else AGREE):
            raise SystemExit(f"{name} differs from ours in {keyword} by {off:.1e}")

    maps = {"bitmap": data["bitmap"], "conf_disambig": data["conf_disambig"],
            "los": data["magnetogram"]}  # fmt: skip
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        name: ((lambda a=arguments: ours(*a)), count) for name, (arguments, count) in sets.items()
    }
    ways["numpy"] = (lambda: vectorised(patch), 1)
    ways["sharp_keywords"] = (lambda: sharp_keywords(data["fields"], header, **maps), 1)
    ways["floor"] = (floor(data), 1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (call, count) in ways.items():
            times[name].append(timed(call) / count)
    middle = {"loops": loop_seconds} | {n: statistics.median(t) for n, t in times.items()}
    least = {"loops": loop_seconds} | {name: min(t) for name, t in times.items()}
    rows = {
        name: {
            "seconds_per_patch": float(f"{seconds:.4g}"), "fastest": float(f"{least[name]:.4g}"),
            "patches_per_second": float(f"{1 / seconds:.4g}"),
            "times_faster_than_loops": float(f"{loop_seconds / seconds:.4g}"),
            "largest_difference": differences.get(name),
        }
        for name, seconds in middle.items()
    }  # fmt: skip
    print(f"{'way':<20}{'ms per patch':>14}{'patches/s':>12}{'loops / it':>12}")
    for name, row in rows.items():
        columns = (1e3 * row["seconds_per_patch"], row["patches_per_second"])
        faster = row["times_faster_than_loops"]
        print(f"{name:<20}{columns[0]:>14.2f}{columns[1]:>12.3g}{faster:>12.0f}")
    result = {
        "command": "python " + " ".join(sys.argv), "revision": git_revision(),
        "machine": platform.machine(), "processor": processor(), "threads": 1,
        "python": platform.python_version(), "torch": torch.__version__,
        "numpy": np.__version__, "scipy": scipy.__version__, "rounds": options.rounds,
        "patch": {"record": "hmi.sharp_cea_720s[377][2011.02.15_02:00:00_TAI]",
                  "pixels": list(br.shape), "counted": int(mask.sum())},
        "ways": rows, "shares_of_float64_batch_1": shares(*sets["float64, batch 1"][0]),
    }  # fmt: skip
    print(json.dumps(result["shares_of_float64_batch_1"]))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, result)


def processor() -> str:
    """Name of the CPU, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
