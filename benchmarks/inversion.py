"""How well patches are inverted: real ones that were held out, and generated ones of known w.

    python benchmarks/inversion.py -c configs/archive_hour.toml --tiles 12

Compares the mean w, the nearest sample, the inversion encoder alone, and both spaces of the
optimisation. Writes benchmarks/results/inversion.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sunpipe.config import load_config, to_dict
from sunpipe.files import write_json
from sunpipe.latent.cloud import Cloud, length, make_cloud
from sunpipe.latent.generator import Generator
from sunpipe.latent.invert_patch import Problem, field_errors, keyword_errors, pose
from sunpipe.latent.inverter import Inverter
from sunpipe.latent.inverter_train import get_inverter
from sunpipe.latent.misfit import measured
from sunpipe.latent.optimise import Criterion, optimise
from sunpipe.latent.sample import load_generator
from sunpipe.latent.starts import make_starts
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
    mask = problem.mask[0, 0].cpu().numpy() > 0
    real, image = problem.fields[0].cpu().numpy(), shown[0].cpu().numpy()
    errors = field_errors(real, image, mask, list(generator.channels))
    keywords = keyword_errors(problem.real, values, cloud, criterion.keyword.names)
    return {
        "rms_g": {name: row["rms_g"] for name, row in errors.items()},
        "correlation_br": errors["Br"]["correlation"], "misfit": field,
        "mahalanobis": length(cloud.to_u(w)),
        "keywords_std": {name: abs(row["difference_std"]) for name, row in keywords.items()
                         if row["difference_std"] is not None},
    }  # fmt: skip


def together(problems: list[Problem]) -> Criterion:
    """One criterion for the starts of many patches: they cost little more than those of one.

    A quantity that a patch leaves undefined is a constant there, and moves nothing.
    """
    first = problems[0].criterion
    spread = {name: first.cloud.spread[name] for name in first.cloud.names}
    places = [list(first.cloud.spread).index(name) for name in spread]
    masks = torch.cat([problem.mask for problem in problems])
    keyword = replace(
        first.keyword, names=list(spread), mask=masks,
        wanted=torch.stack([problem.real[places] for problem in problems]),
        spread=torch.tensor(list(spread.values()), dtype=torch.float64, device=masks.device),
    )  # fmt: skip
    field = replace(
        first.field, fields=torch.cat([problem.fields for problem in problems]), mask=masks
    )
    return replace(first, field=field, keyword=keyword)


def optimised(
    problems: list[Problem], nearest: list[int], network: Inverter, cfg: Config, space: Any
) -> list[torch.Tensor]:
    """What ``sunpipe invert`` finds for each patch, all patches in one batch."""
    generator, cloud = problems[0].criterion.generator, problems[0].criterion.cloud
    count, layers = cfg.invert.starts, generator.num_ws if space == "w_plus" else None
    starts = [make_starts(problem.fields, network, cloud, near, count, cfg.seed, layers)[1]
              for problem, near in zip(problems, nearest, strict=True)]  # fmt: skip
    repeated = [problem for problem in problems for _ in range(count)]
    found = optimise(together(repeated), torch.cat(starts), cfg.invert, lambda: None)
    best = found.best["total"].reshape(len(problems), count).argmin(dim=1)
    return [cloud.to_w(found.u[place * count + int(one)]) for place, one in enumerate(best)]


def found_by(
    problems: list[Problem], shown: torch.Tensor, network: Inverter, cfg: Config
) -> Iterator[tuple[str, list[torch.Tensor], float]]:
    """Method, a latent for each patch, and its CPU seconds per patch."""
    cloud = problems[0].criterion.cloud
    near: list[int] = []

    def nearest() -> list[torch.Tensor]:
        near.extend(int(problem.criterion.field(shown).argmin()) for problem in problems)
        return [cloud.w[one] for one in near]

    ways: dict[str, Callable[[], list[torch.Tensor]]] = {
        "mean w": lambda: [cloud.centre for _ in problems],
        "nearest sample": nearest,
        "encoder": lambda: [cloud.to_w(network(problem.fields)[0]) for problem in problems],
        "optimised w": lambda: optimised(problems, near, network, cfg, "w"),
        "optimised w_plus": lambda: optimised(problems, near, network, cfg, "w_plus"),
    }
    for name, find in ways.items():
        began = time.process_time()
        latents = find()
        yield name, latents, (time.process_time() - began) / len(problems)


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
    fields = generator.fields(generator.map(z, cfg.sample.psi), cfg.sample.noise).cpu().numpy()
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
    parser.add_argument("--only", default="", help="only the group of patches that begins so")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cfg, layout = load_config(args.config, args.set), Layout.current()
    generator = load_generator(layout, cfg.name)
    cloud = make_cloud(generator, layout, cfg)
    network, cloud, about = get_inverter(layout.latents(cfg.name), generator, cloud, cfg)
    print(f"{'encoder, held out':43} {json.dumps(about['held_out'])}", flush=True)
    groups: dict[str, Any] = {}
    result = {
        "what": "medians over patches; keywords in natural standard deviations; one CPU thread",
        "run": generator.run, "kimg": generator.kimg, "generator": generator.digest,
        "pixel_km": generator.pixel_cm / 1e5, "resolution": generator.resolution,
        "samples": {"from": cloud.source, "count": len(cloud.w)}, "invert": to_dict(cfg.invert),
        "encoder_held_out": about["held_out"], "groups": groups,
    }  # fmt: skip
    batches = range(0, len(cloud.w), 64)
    shown = torch.cat([generator.fields(cloud.w[at : at + 64], cfg.sample.noise) for at in batches])
    for group, problems in patches(cfg, generator, cloud, args.tiles).items():
        if not group.startswith(args.only):
            continue
        rows: dict[str, Any] = {"patches": len(problems)}
        groups[group] = rows
        for name, latents, seconds in found_by(problems, shown, network, cfg):
            cases = [judged(problem, w) for problem, w in zip(problems, latents, strict=True)]
            rows[name] = {**summary(cases), "seconds_cpu": round(seconds, 3)}
            print(f"{group:24} {name:18} {json.dumps(rows[name])}", flush=True)
            write_json(args.out, result)  # what was done stays when the rest is stopped


if __name__ == "__main__":
    main()
