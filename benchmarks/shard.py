"""FITS to shard, end to end: images per second, where the time goes, and weak scaling over ranks.

Archives are made here: simulated vector patches, and full disks of a known sky in
4096 x 4096 RICE files as the archive has them. Each dataset is made several times by one
process (CPU seconds; shares by wrapping the functions that read, sum, calibrate and
write) and by 1, 2 and 4 MPI ranks with the work per rank held constant.

    python benchmarks/shard.py --out benchmarks/results/shard.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

ROUNDS = 3
PARTS = {  # share of the time: the functions that it is spent in, as (module, name)
    "checksum": [("preprocess.dataset.inputs", "sha256"), ("sunpipe.fits", "verify_sums")],
    "decode": [("sunpipe.fits", "pixels")],
    "calibrate": [("preprocess.dataset.disks", name)
                  for name in ("judge", "calibrate_aia", "calibrate_hmi")],
    "write": [("preprocess.dataset.build", name) for name in ("write_shard", "write_table",
                                                              "sha256")],
}  # fmt: skip
DATASETS: dict[str, dict[str, Any]] = {
    "sharp_vector 512": {"product": "sharp_vector", "tile": 512, "stride": 0, "reduce": 1,
                         "images_per_shard": 8, "quality": "lenient"},
    "sharp_vector tiles of 64": {"product": "sharp_vector", "tile": 128, "stride": 16, "reduce": 2,
                                 "images_per_shard": 256, "quality": "lenient"},
    "hmi_fulldisk 1024": {"product": "hmi_fulldisk", "resolution": 1024, "images_per_shard": 8},
    "aia_193 1024": {"product": "aia_fulldisk", "resolution": 1024, "dtype": "float16",
                     "images_per_shard": 8},
    "hmi_fulldisk 4096": {"product": "hmi_fulldisk", "resolution": 4096, "images_per_shard": 4},
    "aia_193 4096": {"product": "aia_fulldisk", "resolution": 4096, "dtype": "float16",
                     "images_per_shard": 4},
}  # fmt: skip


def make_disks(root: Path, count: int) -> None:
    """`count` magnetograms and as many AIA 193 images, 4096 x 4096, RICE, one a day."""
    from preprocess.archive import relative_path
    from preprocess.manifest import Entry, read_manifest, write_manifest
    from sunpipe.files import sha256
    from sunpipe.fitswrite import write_image
    from tests.unit.disk_fake import aia_cards, dipole, hmi_cards, places, sky

    archive = root / "archive"
    manifest = read_manifest(archive)
    rng = np.random.default_rng(0)
    frames = {}
    for kind, cards, what in (("hmi", hmi_cards, dipole), ("aia", aia_cards, sky)):
        header = cards(4096, rotation=179.93 if kind == "hmi" else 0.02, shift=(3.0, -2.0))
        frames[kind] = header, what(*places(header, 4096))
    for day in range(count):
        when = datetime(2012, 6, 1) + timedelta(days=day)
        for kind in frames:
            header, data = frames[kind]
            if kind == "hmi":
                name = f"hmi.M_720s[{when:%Y.%m.%d_%H:%M:%S_TAI}]"
                segment, unit, scale, bits = "magnetogram", "Gauss", 0.1, 32
                image = data + rng.normal(0, 6.4, data.shape)
                t_rec = f"{when:%Y.%m.%d_%H:%M:%S_TAI}"
            else:
                name = f"aia.lev1_euv_12s[{when:%Y-%m-%dT%H:%M:%SZ}][193]"
                segment, unit, scale, bits = "image", "DN", 1.0, 16
                image = rng.poisson(np.maximum(data, 1)).astype(float)
                t_rec = f"{when:%Y-%m-%dT%H:%M:%SZ}"
            path = archive / relative_path(name, segment)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, image, header | {"T_REC": t_rec}, unit, bscale=scale, bits=bits)
            manifest[name, segment] = Entry(
                name, segment, relative_path(name, segment), sha256(path), path.stat().st_size,
                "fetched", "", "benchmark", "",
            )  # fmt: skip
    write_manifest(archive, manifest)


def simulate(root: Path, count: int) -> None:
    """`count` simulated vector patches of 512 x 352 pixels."""
    command = [sys.executable, "-m", "sunpipe", "simulate", "--records", str(count), "--seed", "1",
               "--size", "512x352"]  # fmt: skip
    subprocess.run(command, check=True, cwd=REPO, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL,
                   env={**os.environ, "SUNPIPE_ROOT": str(root)})  # fmt: skip


def subset(source: Path, root: Path, count: int) -> Path:
    """A data root with the first `count` records of another's archive."""
    from preprocess.manifest import read_manifest, write_manifest

    manifest = read_manifest(source / "archive")
    records = set(sorted({record for record, _ in manifest})[:count])
    archive = root / "archive"
    archive.mkdir(parents=True)
    for folder in (source / "archive").iterdir():
        if folder.is_dir():
            (archive / folder.name).symlink_to(folder)
    write_manifest(archive, {key: one for key, one in manifest.items() if key[0] in records})
    return root


@contextmanager
def timed(spent: dict[str, float]) -> Any:
    """Add the CPU time of `PARTS` to `spent` while the block runs."""
    import importlib

    kept: list[tuple[Any, str, Any]] = []

    def wrap(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                spent[part] = spent.get(part, 0.0) + time.process_time() - start

        return run

    for part, places in PARTS.items():
        for module, name in places:
            home = importlib.import_module(module)
            kept.append((home, name, getattr(home, name)))
            setattr(home, name, wrap(part, getattr(home, name)))
    try:
        yield
    finally:
        for home, name, work in kept:
            setattr(home, name, work)


def one_process(root: Path, label: str) -> dict[str, Any]:
    """Images per CPU second of one process, and shares of the time; median of the rounds."""
    from preprocess.shard import shard
    from sunpipe.config import validate

    os.environ["SUNPIPE_ROOT"] = str(root)
    config = validate({"name": "bench", "dataset": "bench", "shard": DATASETS[label]})
    found = []
    for _ in range(ROUNDS + 1):  # the first compiles
        shutil.rmtree(root / "shards", ignore_errors=True)
        spent: dict[str, float] = {}
        with timed(spent):
            start = time.process_time()
            result = shard(config)
            whole = time.process_time() - start
        assert result is not None
        size = sum(path.stat().st_size for path in (root / "shards/bench").glob("*.h5"))
        shares = {part: seconds / whole for part, seconds in spent.items()}
        found.append({"images": result["rows"], "cpu_s": whole, "shares": shares, "bytes": size})
    middle = sorted(found[1:], key=lambda one: one["cpu_s"])[ROUNDS // 2]
    rest = 1 - sum(middle["shares"].values())
    return {
        "images": middle["images"],
        "images_per_cpu_s": middle["images"] / middle["cpu_s"],
        "ms_per_image": 1000 * middle["cpu_s"] / middle["images"],
        "bytes_per_image": middle["bytes"] / middle["images"],
        "shares": {**middle["shares"], "rest": rest},
    }


def ranks(root: Path, label: str, count: int) -> float:
    """Wall seconds that `count` MPI ranks take, start included; median of the rounds."""
    settings = [f"shard.{key}={json.dumps(value)}" for key, value in DATASETS[label].items()]
    options = [part for setting in settings for part in ("-s", setting)]
    command = ["mpiexec", "-n", str(count), sys.executable, "-m", "sunpipe", "shard",
               "-s", "name='bench'", "-s", "dataset='bench'", *options]  # fmt: skip
    env = {**os.environ, "SUNPIPE_ROOT": str(root), "OMP_NUM_THREADS": "1"}
    times = []
    for _ in range(ROUNDS):
        shutil.rmtree(root / "shards", ignore_errors=True)
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=REPO, env=env, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def weak_scaling(source: Path, label: str, per_rank: int, counts: tuple[int, ...]) -> list[Any]:
    """The same work per rank at rising numbers of ranks."""
    rows = []
    for count in counts:
        root = subset(source, source.with_name(f"weak-{count}"), per_rank * count)
        seconds = ranks(root, label, count)
        rows.append({"ranks": count, "images": per_rank * count, "wall_s": seconds,
                     "efficiency": rows[0]["wall_s"] / seconds if rows else 1.0})  # fmt: skip
        shutil.rmtree(root)
    return rows


def cost_model(source: Path, label: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """CPU seconds ``a + b N`` fitted to runs of N records, and what it says of large N."""
    from preprocess.shard import shard
    from sunpipe.config import validate

    measured = []
    config = validate({"name": "bench", "dataset": "bench", "shard": DATASETS[label]})
    for size in sizes:
        root = subset(source, source.with_name(f"cost-{size}"), size)
        os.environ["SUNPIPE_ROOT"] = str(root)
        start = time.process_time()
        shard(config)
        measured.append((size, time.process_time() - start))
        shutil.rmtree(root)
    slope, start = np.polyfit(*np.array(measured, float).T, 1)
    return {
        "measured": [{"records": n, "cpu_s": s} for n, s in measured],
        "cpu_s_per_record": float(slope),
        "fixed_cpu_s": float(start),
        "predicted_core_hours": {str(n): float(start + slope * n) / 3600 for n in (10**5, 10**7)},
        "assumes": "cost linear in records (peeking, reading, writing and tables are; no index is"
                   " searched per record), a file system that feeds every rank, records of the"
                   " simulated size distribution",
    }  # fmt: skip


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--disks", type=int, default=4, help="full-disk images per instrument")
    parser.add_argument("--patches", type=int, default=40, help="patches per rank")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_disks(folder / "disks", arguments.disks)
        simulate(folder / "all", 8 * arguments.patches)
        subset(folder / "all", folder / "patches", arguments.patches)
        results: dict[str, Any] = {
            label: one_process(folder / ("patches" if "sharp" in label else "disks"), label)
            for label in DATASETS
        }
        whole = folder / "all"
        scaling = weak_scaling(whole, "sharp_vector tiles of 64", arguments.patches, (1, 2, 4))
        sizes = tuple(arguments.patches * times for times in (1, 2, 4, 8))
        cost = cost_model(whole, "sharp_vector 512", sizes)
    from sunpipe.provenance import versions

    document = {
        "command": "python benchmarks/shard.py",
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "end_to_end": results,
        "weak_scaling": scaling,
        "cost": cost,
    }
    print(json.dumps(document, indent=2))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
