"""Does it learn, and do the log transform and DiffAugment help? Four arms on the bundled patches.

Run it alone on a machine, some tens of minutes::

    OMP_NUM_THREADS=1 python benchmarks/learning.py --root /tmp/learning --pictures docs

The arms are ``signed_log`` (bent at `--bend` gauss) or ``linear`` fields, with
DiffAugment (translation, cutout) or without. Everything else is configs/demo.toml at
32 x 32 pixels, with larger batches. Every arm is trained by ``sunpipe train`` from `--seeds` seeds,
one after the other, all arms of a seed first, and its checkpoints are measured
afterwards on `COUNT` images of G_ema: in gauss, by one transform for all arms.
``fd_random`` looks through asinh bent at 100 G, which weighs weak fields;
``fd_linear`` through a linear map, which weighs strong ones: an order that holds
in only one of them is a matter of taste. ``held_out`` are the same distances
from the patches of HARP 6060, which no arm was trained on. ``absurd`` is the
share of generated patches with a pixel beyond twice the strongest real one.

What was trained before under `--root` is not trained again, so that the command
can be interrupted, and run again with more seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe import checkpoint, plots
from sunpipe.evaluate import FeatureBlock, Reference, compare
from sunpipe.evaluate.lens import common_view
from sunpipe.evaluate.random_features import RandomFeatures
from sunpipe.evaluate.scale import halves
from sunpipe.evaluate.sheet import draw_sheet
from sunpipe.files import write_json
from sunpipe.latent.generator import Generator
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.provenance import git_revision, versions
from sunpipe.run import read_stats
from sunpipe.shards.normalize import describe, encode
from sunpipe.shards.reader import ShardReader
from sunpipe.train_settings import MetricSettings

REPO = Path(__file__).resolve().parent.parent
CONFIG = REPO / "configs/demo.toml"
SIDE, COUNT, BATCH = 32, 512, 64
DATA = ("dataset=learning", "shard.reduce=4")
LINEAR = NormalizeSettings("linear", 1.0, 3000.0, 0.0)
TRANSFORMS = {
    "log": ("train.normalize.kind=signed_log",),
    "linear": ("train.normalize.kind=linear",),
}
AUGMENTS = {"diffaugment": ('train.diffaugment=["translation","cutout"]',),
            "plain": ("train.diffaugment=[]",)}  # fmt: skip
ARMS = [f"{one}-{two}" for one, two in itertools.product(TRANSFORMS, AUGMENTS)]
COLOURS = dict(zip(ARMS, ("#1b6ca8", "#7fb8de", "#c4501b", "#f0a878"), strict=True))
LABELS = {
    "fd_random": "Frechet distance (asinh view)", "fd_linear": "Frechet distance (linear view)",
    "spectrum_db": "power spectrum (dB)", "w1_pixels": "pixel values (std)",
    "w1_usflux": "unsigned flux (std)", "w1_imbalance": "flux imbalance (std)",
}  # fmt: skip
Row = dict[str, Any]


def sunpipe(root: Path, *args: str) -> float:
    """Run a stage under `root`; its seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "sunpipe", *args], check=True, cwd=REPO, stdout=subprocess.DEVNULL,
        env={**os.environ, "SUNPIPE_ROOT": str(root)},
    )  # fmt: skip
    return time.perf_counter() - started


def options(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def train(root: Path, arm: str, seed: int, args: argparse.Namespace) -> float:
    """Train one arm from one seed, keeping the planned checkpoints; seconds."""
    transform, augment = arm.split("-")
    kimg, points = args.kimg, args.points
    every = kimg / points
    return sunpipe(
        root, "train", "--config", str(CONFIG),
        *options(*DATA, f"name={arm}-{seed}", f"seed={seed}", f"train.kimg={kimg}",
                 f"train.batch={args.batch}", f"train.normalize.scale={args.bend}",
                 f"train.checkpoint_kimg={every}",
                 f"train.image_kimg={kimg}", f"train.tick_kimg={every}",
                 f"train.keep_checkpoints={2 * points}", "train.zero.stage=0",
                 "train.zero.offload=false", *TRANSFORMS[transform],
                 *AUGMENTS[augment]),
    )  # fmt: skip


def reference(reader: ShardReader) -> Reference:
    """Of all images of a split, with linear features beside the usual ones."""
    network = RandomFeatures(len(reader.info.channels), SIDE)

    def linear(fields: torch.Tensor) -> np.ndarray:
        return network(encode(fields, LINEAR)).numpy()

    settings = MetricSettings(count=10**6, batch=BATCH)
    return Reference.of(reader, settings, vectors={"linear": linear})


def scheduled(run: Path, kimg: float, points: int) -> list[Path]:
    """The first checkpoint from each of the planned points on; a stopped run has more of them."""
    found = [(checkpoint.load_state(path)["nimg"] / 1000, path)
             for path in checkpoint.complete(run / "checkpoints")]  # fmt: skip
    wanted = [kimg * (place + 1) / points for place in range(points)]
    return [next(path for at, path in found if at >= point) for point in wanted]


def measure(
    paths: list[Path], train_side: Reference, test_side: Reference, strongest: float
) -> list[Row]:
    """Distances of checkpoints of a run; `strongest` is the largest real abs(B)."""
    run = paths[-1].parent.parent
    generator = Generator.load(run)
    z = generator.sample_z(COUNT, seed=12345)
    rows = []
    for path in paths:
        generator.network.load_state_dict(checkpoint.load_tensors(path, "G_ema"))
        fields = torch.cat([generator.fields(generator.map(z[start : start + BATCH]))
                            for start in range(0, COUNT, BATCH)])  # fmt: skip
        block = FeatureBlock.concat(map(train_side.features, fields.split(BATCH)))
        peak = fields.abs().amax(dim=(1, 2, 3))
        rows.append({
            "kimg": checkpoint.load_state(path)["nimg"] / 1000,
            "absurd": float((peak > 2 * strongest).float().mean()),
            "median_peak_g": float(peak.median()),
            "train": compare(train_side, block), "held_out": compare(test_side, block),
        })  # fmt: skip
    return rows


def effects(runs: list[Row], side: str) -> dict[str, Row]:
    """How much each lever helps at the end: log of (without / with), over seeds and the other.

    ``ratio`` is the geometric mean; above 1 the lever helps. ``low``, ``high``
    are the smallest and largest of the single comparisons, ``for`` how many of
    them say that it helps.
    """
    last = {(run["arm"], run["seed"]): run["curve"][-1][side] for run in runs}
    pairs = {
        "log transform": [(f"linear-{a}", f"log-{a}") for a in AUGMENTS],
        "DiffAugment": [(f"{t}-plain", f"{t}-diffaugment") for t in TRANSFORMS],
    }
    found: dict[str, Row] = {}
    for lever, arms in pairs.items():
        found[lever] = {}
        for name in LABELS:
            ratios = [last[without, seed][name] / last[with_, seed][name]
                      for without, with_ in arms for seed in sorted({s for _, s in last})
                      if (without, seed) in last and (with_, seed) in last]  # fmt: skip
            if ratios:
                found[lever][name] = {
                    "ratio": float(np.exp(np.mean(np.log(ratios)))), "low": min(ratios),
                    "high": max(ratios), "for": sum(r > 1 for r in ratios), "of": len(ratios),
                }  # fmt: skip
    return found


def draw_curves(result: Row, path: Path) -> None:
    """Distances from the training patches over kimg; the floor dashed, a thin line per seed."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = plots.new_figure(10.5, 5.6)
    axes_all = figure.subplots(2, 3)
    for axes, (name, label) in zip(axes_all.flat, LABELS.items(), strict=True):
        for arm in ARMS:
            curves = [run["curve"] for run in result["runs"] if run["arm"] == arm]
            kimg = [row["kimg"] for row in curves[0]]
            values = np.array([[row["train"][name] for row in curve] for curve in curves])
            for line in values:
                axes.plot(kimg, line, color=COLOURS[arm], linewidth=0.6, alpha=0.7)
            axes.plot(kimg, np.exp(np.log(values).mean(axis=0)), color=COLOURS[arm],
                      linewidth=1.8, label=arm.replace("-", ", "))  # fmt: skip
        axes.axhline(result["real_halves"][name], color=plots.INK, linewidth=0.9,
                     dashes=(4, 3), label="real from real")  # fmt: skip
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1e4 * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(label, fontsize=9, color=plots.INK)
        axes.tick_params(labelsize=8)
    for axes in axes_all[1]:
        axes.set_xlabel("images shown (kimg)", fontsize=8)
    handles, labels = axes_all[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    plots.save(figure, path, dpi=90)


def draw_samples(root: Path, reader: ShardReader, path: Path, kimg: float) -> None:
    """Patches evenly spaced over the real ones, and the first ones of each arm of seed 0."""
    rows = reader.rows[np.linspace(0, len(reader) - 1, 16).round().astype(int)]
    groups = {"real": reader.images(rows)[:, 0]}
    for arm in ARMS:
        folder = run_folder(root, arm, 0)
        generator = Generator.load(folder)
        last = scheduled(folder, kimg, 1)[-1]
        generator.network.load_state_dict(checkpoint.load_tensors(last, "G_ema"))
        fields = generator.fields(generator.map(generator.sample_z(16, seed=0)))
        groups[arm.replace("-", ", ")] = fields[:, 0].cpu().numpy()
    figure = draw_sheet(groups, unit="Gauss", label="Br", columns=4)
    plots.save(figure, path, dpi=75)


def run_folder(root: Path, arm: str, seed: int) -> Path:
    return next((root / "runs").glob(f"?????-{arm}-{seed}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="data root; kept")
    parser.add_argument("--out", type=Path, default=REPO / "benchmarks/results/learning.json")
    parser.add_argument("--pictures", type=Path, help="folder for learning*.png")
    parser.add_argument("--kimg", type=float, default=16.0)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bend", type=float, default=500.0, help="of the log transform, gauss")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sunpipe(args.root, "fetch", "--config", str(CONFIG))
    sunpipe(args.root, "shard", "--config", str(CONFIG), *options(*DATA))
    readers = {split: ShardReader(args.root / "shards/learning", splits=(split,))
               for split in ("train", "test")}  # fmt: skip
    sides = {split: reference(reader) for split, reader in readers.items()}
    strongest = float(np.abs(readers["train"].images(readers["train"].rows)).max())
    result: Row = {
        "command": "OMP_NUM_THREADS=1 python " + " ".join(sys.argv),
        "revision": git_revision(), "versions": versions(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "images": {split: len(reader) for split, reader in readers.items()},
        "strongest_g": strongest, "view": describe(common_view(readers["train"]), "G"),
        "generated": COUNT,
        "real_halves": halves(readers["train"], sides["train"], COUNT, BATCH),
        "held_out_real": compare(sides["train"], sides["test"].block), "runs": [],
    }  # fmt: skip
    for seed, arm in itertools.product(range(args.seeds), ARMS):
        load = os.getloadavg()[0]
        seconds = train(args.root, arm, seed, args)
        folder = run_folder(args.root, arm, seed)
        last = read_stats(folder)[-1]
        paths = scheduled(folder, args.kimg, args.points)
        curve = measure(paths, sides["train"], sides["test"], strongest)
        result["runs"].append({
            "arm": arm, "seed": seed, "seconds": round(seconds, 1), "load": load,
            "sec_per_kimg": last["sec_per_kimg"], "logits_real": last.get("logits_real"),
            "logits_fake": last.get("logits_fake"), "curve": curve,
        })  # fmt: skip
        result["effects"] = {side: effects(result["runs"], side) for side in ("train", "held_out")}
        write_json(args.out, result)
        print(json.dumps({"arm": arm, "seed": seed, "seconds": round(seconds, 1),
                          "absurd": curve[-1]["absurd"],
                          **{k: round(v, 3) for k, v in curve[-1]["train"].items()}}),
              flush=True)  # fmt: skip
    if args.pictures is not None:
        draw_curves(result, args.pictures / "learning.png")
        draw_samples(args.root, readers["train"], args.pictures / "learning-samples.png", args.kimg)


def cpu() -> str:
    """Model of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


if __name__ == "__main__":
    main()
