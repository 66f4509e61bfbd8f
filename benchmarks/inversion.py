"""How well patches are inverted: real ones that were held out, and generated ones of known w.

    python benchmarks/inversion.py -c configs/archive_hour.toml --tiles 12

Compares the mean w, the nearest sample, the inversion encoder alone, and both spaces of the
optimisation. Writes benchmarks/results/inversion.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe.config import load_config, to_dict
from sunpipe.files import write_json
from sunpipe.latent.cloud import Cloud, make_cloud
from sunpipe.latent.generator import Generator
from sunpipe.latent.invert_patch import Problem, field_errors, invert_patch, keyword_errors, pose
from sunpipe.latent.inverter import Inverter
from sunpipe.latent.inverter_train import get_inverter
from sunpipe.latent.misfit import measured
from sunpipe.latent.sample import load_generator
from sunpipe.latent.starts import nearest
from sunpipe.latent.target import target_row
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.shards.order import generator_seed
from sunpipe.shards.reader import ShardReader

OUT = Path(__file__).parent / "results" / "inversion.json"
Case = dict[str, Any]


def judged(problem: Problem, w: torch.Tensor) -> Case:
    """Errors of one latent on one patch, by the functions of ``sunpipe invert``."""
    criterion = problem.criterion
    generator, cloud = criterion.generator, criterion.cloud
    with torch.no_grad():
        shown = generator.fields(w[None], criterion.noise)
        values = measured(
            shown, problem.mask, list(generator.channels), generator.pixel_cm, list(cloud.spread)
        )[0]
        field = float(criterion.field(shown))
    mask = problem.mask[0, 0].numpy() > 0
    errors = field_errors(
        problem.fields[0].numpy(), shown[0].numpy(), mask, list(generator.channels)
    )
    keywords = keyword_errors(problem.real, values, cloud, criterion.keyword.names)
    return {
        "rms_g": {name: row["rms_g"] for name, row in errors.items()},
        "correlation_br": errors["Br"]["correlation"], "misfit": field,
        "mahalanobis": float(cloud.to_u(w).square().mean().sqrt()),
        "keywords_std": {name: abs(row["difference_std"]) for name, row in keywords.items()
                         if row["difference_std"] is not None},
    }  # fmt: skip


def methods(
    problem: Problem, network: Inverter, cfg: Config
) -> dict[str, Callable[[], torch.Tensor]]:
    """Name to what finds a latent."""
    criterion = problem.criterion
    cloud = criterion.cloud

    def optimised(space: Any) -> torch.Tensor:
        settings = replace(cfg.invert, space=space)
        return torch.from_numpy(invert_patch(problem, network, settings, cfg.seed).w)

    return {
        "mean w": lambda: cloud.centre,
        "nearest sample": lambda: cloud.w[
            nearest(criterion.generator, cloud, criterion.field, criterion.noise)
        ],
        "encoder": lambda: cloud.to_w(network(problem.fields)[0]),
        "optimised w": lambda: optimised("w"),
        "optimised w_plus": lambda: optimised("w_plus"),
    }


def summary(cases: list[Case]) -> Case:
    """Medians over patches."""

    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(float(np.median(known)), 4) if known else None

    names = sorted({name for case in cases for name in case["keywords_std"]})
    return {
        "rms_g": {name: middle([case["rms_g"][name] for case in cases])
                  for name in cases[0]["rms_g"]},
        "correlation_br": middle([case["correlation_br"] for case in cases]),
        "misfit": middle([case["misfit"] for case in cases]),
        "mahalanobis": middle([case["mahalanobis"] for case in cases]),
        "keywords_std": {name: middle([case["keywords_std"].get(name) for case in cases])
                         for name in names},
        "seconds_cpu": middle([case["seconds_cpu"] for case in cases]),
    }  # fmt: skip


def patches(cfg: Config, generator: Generator, cloud: Cloud, count: int) -> dict[str, list[Any]]:
    """Problems: observed and simulated tiles of the test split, and generated ones."""
    reader = ShardReader(Layout.current().shards(cfg.dataset), splits=["test"])
    simulated = np.array(reader.records["simulated"].to_pylist())[reader.rows]
    source = np.random.default_rng(cfg.seed)
    found: dict[str, list[Any]] = {}
    for name, rows in (
        ("observed, test split", reader.rows[~simulated]),
        ("simulated, test split", reader.rows[simulated]),
    ):
        chosen = source.choice(rows, min(count, len(rows)), replace=False)
        targets = [target_row(reader, int(row)) for row in np.sort(chosen)]
        found[name] = [pose(generator, cloud, cfg.sample.noise, target.fields, target.mask,
                            cfg.invert) for target in targets]  # fmt: skip
    z = generator.sample_z(count, generator_seed(cfg.seed, 0, 0, "benchmark"))
    fields = generator.fields(generator.map(z, cfg.sample.psi), cfg.sample.noise).numpy()
    whole = np.ones(fields.shape[2:], bool)
    found["generated"] = [
        pose(generator, cloud, cfg.sample.noise, one, whole, cfg.invert) for one in fields
    ]
    return found


def main() -> None:
    """Invert, print a line per method, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("-s", "--set", action="append", default=[])
    parser.add_argument("--tiles", type=int, default=12)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg, layout = load_config(args.config, args.set), Layout.current()
    generator = load_generator(layout, cfg.name)
    cloud = make_cloud(generator, layout, cfg)
    network, about = get_inverter(layout.latents(cfg.name), generator, cloud, cfg)
    groups: dict[str, Any] = {}
    result = {
        "what": "medians over patches; keywords in natural standard deviations; one core",
        "run": generator.run, "kimg": generator.kimg, "generator": generator.digest,
        "pixel_km": generator.pixel_cm / 1e5, "resolution": generator.resolution,
        "samples": {"from": cloud.source, "count": len(cloud.w)}, "invert": to_dict(cfg.invert),
        "encoder_held_out": about["held_out"], "groups": groups,
    }  # fmt: skip
    for group, problems in patches(cfg, generator, cloud, args.tiles).items():
        cases: dict[str, list[Case]] = {}
        for problem in problems:
            for name, find in methods(problem, network, cfg).items():
                began = time.process_time()
                with torch.set_grad_enabled(name.startswith("optimised")):
                    w = find()
                seconds = time.process_time() - began
                row = {**judged(problem, w), "seconds_cpu": seconds}
                cases.setdefault(name, []).append(row)
            groups[group] = {"patches": len(cases["encoder"]),
                             **{name: summary(rows) for name, rows in cases.items()}}  # fmt: skip
            write_json(args.out, result)  # what was done stays when the rest is stopped
        for name, rows in cases.items():
            print(f"{group:24} {name:18} {json.dumps(summary(rows))}", flush=True)


if __name__ == "__main__":
    main()
