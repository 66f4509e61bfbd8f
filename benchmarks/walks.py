"""How often a walk reaches what was asked, and what else it changes.

    python benchmarks/walks.py -c configs/archive_hour.toml --out benchmarks/results/walks.json

From `--starts` seeds that no sample was drawn with, every direction is walked by one natural
standard deviation of its quantity, up and down: straight along the plain and the conditional
direction, with the bent way where the straight one ends, and holding the other directions'
quantities. Reached means within 5 %. The `possible` starts are those from which the
asked value lies between the 1st and the 99th percentile of the samples: from a patch without
flux no walk takes flux away. A leak is the change of another quantity per change of the target,
both in natural standard deviations, as a magnitude; its median over the starts that moved the
target by a tenth of what was asked at least. Quantities that go together over the samples (rank
correlation above `TWIN`) are not held against each other, and are left out of both leaks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import document, write

from sunpipe.config import load_config
from sunpipe.errors import SunpipeError
from sunpipe.latent.ask import Asked, Wish
from sunpipe.latent.by_amount import measurer
from sunpipe.latent.directions import Directions, read_directions
from sunpipe.latent.leakage import natural
from sunpipe.latent.measure import observer
from sunpipe.latent.routes import Route, choose
from sunpipe.latent.sample import load_generator, samples_path
from sunpipe.latent.samples import Samples, read_samples
from sunpipe.latent.start import from_seed
from sunpipe.paths import Layout
from sunpipe.stage import log

TWIN = 0.9
FIRST_SEED = 10_000_019
BATCH = 128
LEAST = 0.1  # of the asked change, for a leak to be told
HELD = 0.1  # natural standard deviations


def twins(samples: Samples, names: list[str]) -> dict[str, list[str]]:
    """Of each quantity, the others that say the same."""
    from scipy.stats import spearmanr

    found: dict[str, list[str]] = {name: [] for name in names}
    for one in names:
        for other in names:
            rank = spearmanr(samples.column(one), samples.column(other), nan_policy="omit")
            if one != other and abs(float(rank.statistic)) > TWIN:
                found[one].append(other)
    return found


def ways(name: str, others: tuple[str, ...], held: bool) -> dict[str, Asked]:
    """What is asked of one quantity."""
    asked = {
        "straight": Asked(name, path="straight"),
        "auto": Asked(name),
        "conditional": Asked(name, path="straight", against=others),
    }
    return {"hold": Asked(name, hold=others, hold_tolerance=HELD)} if held else asked


class Row:
    """What the walks of one quantity, sign and way came to."""

    def __init__(self) -> None:
        self.reached: list[bool] = []
        self.possible: list[bool] = []
        self.share: list[float] = []
        self.leaks: list[np.ndarray] = []
        self.seconds: list[float] = []

    def add(self, route: Route | None, asked: float, possible: bool, place: int,
            deviations: np.ndarray, seconds: float) -> None:  # fmt: skip
        """Count one walk; None is one that could not begin."""
        self.possible.append(possible)
        self.seconds.append(seconds)
        self.reached.append(route is not None and route.reached)
        moved = 0.0 if route is None else (route.after[place] - route.before[place]) / asked
        self.share.append(float(moved))
        if route is not None and moved >= LEAST:
            change = (route.after - route.before) / deviations
            self.leaks.append(np.abs(change / change[place]))

    def told(self, names: list[str], others: tuple[str, ...]) -> dict[str, Any]:
        """JSON-able."""
        able = np.array(self.possible)
        reached = np.array(self.reached)
        told: dict[str, Any] = {
            "starts": len(reached), "reached": float(reached.mean()),
            "possible": int(able.sum()),
            "reached_of_possible": float(reached[able].mean()) if able.any() else None,
            "median_share_of_asked": float(np.median(self.share)),
            "median_seconds": float(np.median(self.seconds)),
        }  # fmt: skip
        if self.leaks:
            median = np.nanmedian(np.stack(self.leaks), axis=0)
            leaks = {name: float(median[names.index(name)]) for name in others}
            worst = max(leaks, key=lambda name: leaks[name])
            told |= {"leaks": leaks, "largest_leak": {"quantity": worst, "leak": leaks[worst]}}
        return told


def summary(rows: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    """Over quantities and signs: shares reached, and the largest leak of each way."""
    found: dict[str, Any] = {}
    for way in kinds:
        cells = [row[way] for both in rows.values() for row in both.values() if way in row]
        leaks = [cell["largest_leak"]["leak"] for cell in cells if "largest_leak" in cell]
        possible = [c["reached_of_possible"] for c in cells if c["reached_of_possible"] is not None]
        found[way] = {
            "reached": float(np.mean([cell["reached"] for cell in cells])),
            "reached_of_possible": float(np.mean(possible)),
            "largest_leak": max(leaks, default=None),
            "median_of_largest_leaks": float(np.median(leaks)) if leaks else None,
        }
    return found


def bench(directions: Directions, samples: Samples, generator: Any, starts: int, held: int,
          reach: float) -> dict[str, Any]:  # fmt: skip
    """Walk every direction from every start."""
    names, space = samples.names, directions.space
    look = observer(generator, names, samples.recipe["noise"], space)
    measure, deviations = measurer(look, BATCH), natural(samples.values)
    walked = list(directions.quantities)
    same = twins(samples, walked)
    bases = [from_seed(generator, space, FIRST_SEED + number).x for number in range(starts)]
    before = measure(np.stack(bases))
    rows: dict[str, Any] = {}
    for name in walked:
        place = names.index(name)
        others = tuple(each for each in walked if each != name and each not in same[name])
        low, high = np.nanpercentile(samples.values[:, place], [1, 99])
        rows[name] = {}
        for side, sign in (("up", 1.0), ("down", -1.0)):
            change = sign * float(deviations[place])
            wish = Wish(change, samples.units[samples.names.index(name)], False)
            found = {}
            for few, count in ((False, starts), (True, held)):
                for way, asked in ways(name, others, few).items():
                    row = Row()
                    for base, value in zip(bases[:count], before[:count, place], strict=True):
                        began = time.perf_counter()
                        try:
                            route = choose(asked, wish, directions, samples, measure, base, reach)
                        except SunpipeError:
                            route = None  # undefined at this start
                        able = bool(np.isfinite(value) and low <= value + change <= high)
                        row.add(route, change, able, place, deviations,
                                time.perf_counter() - began)  # fmt: skip
                    found[way] = row.told(names, others)
                    log(f"{name} {side} {way}: {found[way]}")
            rows[name][side] = found
    kinds = ["straight", "auto", "conditional", "hold"]
    return {"twins": same, "summary": summary(rows, kinds), "quantities": rows}


def main() -> None:
    """Walk and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("-s", "--set", action="append", default=[])
    parser.add_argument("--starts", type=int, default=40)
    parser.add_argument("--held", type=int, default=10, help="Starts of the held walks.")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cfg, layout = load_config(args.config, args.set), Layout.current()
    directions = read_directions(layout.latents(cfg.name))
    generator = load_generator(layout, cfg.name)
    directions.require(generator)
    samples = read_samples(samples_path(layout, cfg.name))
    found = bench(directions, samples, generator, args.starts, args.held, cfg.directions.reach)
    about = {
        "run": generator.run, "kimg": generator.kimg, "samples": len(samples),
        "space": directions.space.name, "starts": args.starts, "hold_tolerance": HELD,
    }  # fmt: skip
    write(document("walks", {**about, **found}), args.out)


if __name__ == "__main__":
    main()
