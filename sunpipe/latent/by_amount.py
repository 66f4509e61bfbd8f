"""``sunpipe traverse``: move one latent until a measured quantity has changed by an amount."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sunpipe.errors import DataError
from sunpipe.files import digest
from sunpipe.latent.ask import Asked, Wish, check, understand
from sunpipe.latent.assemble import require_samples
from sunpipe.latent.calibrate import finite
from sunpipe.latent.direction import Floats
from sunpipe.latent.directions import Directions, read_directions
from sunpipe.latent.generator import Generator
from sunpipe.latent.hold import Measure
from sunpipe.latent.leakage import natural
from sunpipe.latent.measure import Look, batches, observer
from sunpipe.latent.routes import Route, choose
from sunpipe.latent.sample import load_generator, samples_path, stopper
from sunpipe.latent.samples import Samples, read_recipe
from sunpipe.latent.space import Space
from sunpipe.latent.start import Start, from_file, from_seed, w_of
from sunpipe.latent.traverse import PICTURE, shrink
from sunpipe.latent.walk_files import Seen, read_frames, table, write_all
from sunpipe.latent.walk_folder import RESULT, folder_name, require_other, walk_recipe, written
from sunpipe.latent.walks import Walk
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag

__all__ = ["Asked", "plan", "traverse"]


def measurer(look: Look, batch: int) -> Measure:
    """Flat latents (K, D) to values (K, Q), a bounded number of them at once."""

    def measure(x: Floats) -> Floats:
        return np.concatenate(
            [look(np.asarray(x[part], np.float32))[1] for part in batches(len(x), batch)]
        )

    return measure


def changes(names: list[str], units: list[str], before: Floats, after: Floats) -> dict[str, Any]:
    """Before, after and change of every quantity; None where undefined."""
    columns = (finite(before), finite(after), finite(after - before))
    return {
        name: {"before": old, "after": new, "change": change, "unit": unit}
        for name, unit, old, new, change in zip(names, units, *columns, strict=True)
    }


def held_report(asked: Asked, samples: Samples, route: Route) -> dict[str, Any]:
    """Of every held quantity: its drift in its unit and in natural deviations, and the verdict."""
    deviations, found = natural(samples.values), {}
    for name in asked.hold:
        place = samples.names.index(name)
        drift = float(route.after[place] - route.before[place])
        share = drift / float(deviations[place])
        found[name] = {
            "unit": samples.units[place], "before": float(route.before[place]),
            "after": float(route.after[place]), "drift": drift, "drift_std": share,
            "tolerance_std": asked.hold_tolerance,
            "held": bool(abs(share) <= asked.hold_tolerance),
        }  # fmt: skip
    return found


def _look_at(
    generator: Generator, space: Space, look: Look, route: Route, start: Start, asked: Asked,
    samples: Samples, sigma: float, batch: int, count: int,
) -> Seen:  # fmt: skip
    """Measure and keep `count` frames of a route."""
    steps, x = route.frames(count)
    parts = [look(np.asarray(x[part], np.float32)) for part in batches(len(x), batch)]
    fields = np.concatenate([each for each, _ in parts])
    small = shrink(fields, PICTURE)
    walk = Walk(
        target=asked.target, kind=route.way if route.way != "straight" else asked.kind,
        steps=np.asarray(steps, np.float64), sigma=sigma,
        rows=np.array([-1 if start.seed is None else start.seed]), names=samples.names,
        units=samples.units, values=np.concatenate([values for _, values in parts])[None],
        images=small[None], channels=list(generator.channels),
        pixel_cm=generator.pixel_cm * fields.shape[-1] / small.shape[-1],
    )  # fmt: skip
    return Seen(walk, fields, x, w_of(generator, space, x))


def _said(
    asked: Asked, wish: Wish, samples: Samples, route: Route, start: Start, generator: Generator
) -> Result:
    """The result of a walk, without its files."""
    others = changes(samples.names, samples.units, route.before, route.after)
    own = others.pop(asked.quantity, None) if asked.quantity else None
    step = float(route.steps[-1])
    measured = own["change"] if own else step
    return {
        "quantity": asked.quantity, "component": asked.component,
        "asked": wish.amount - own["before"] if own and wish.absolute else wish.amount,
        "to": wish.amount if wish.absolute else None,
        "measured": measured, "unit": wish.unit,
        "before": own["before"] if own else 0.0, "after": own["after"] if own else step,
        "step": step, "reached": route.reached, "reason": route.reason, "way": route.way,
        "conditional": asked.conditional, "against": list(asked.against),
        "held": held_report(asked, samples, route), "seed": start.seed, "from": start.source,
        "run": generator.run, "generator": generator.digest, "others": others,
    }  # fmt: skip


class Ready(NamedTuple):
    """All that is known before a walk is made."""

    directions: Directions
    wish: Wish
    generator: Generator
    start: Start
    folder: Path
    recipe: dict[str, Any]


def _ready(layout: Layout, cfg: Config, asked: Asked) -> Ready:
    """Check everything that can be checked without measuring."""
    check(asked)
    directions = read_directions(layout.latents(cfg.name))
    path = samples_path(layout, cfg.name)
    samples = read_recipe(path)
    wish = understand(asked, directions, samples["quantities"])
    generator: Generator = load_generator(layout, cfg.name)
    directions.require(generator)
    if directions.about["recipe"]["samples"] != digest(samples):
        raise DataError(
            f"{directions.folder / 'directions.json'} was fitted on other samples than {path.name}"
            " holds now; run sunpipe directions fit again"
        )
    start = (from_seed(generator, directions.space, asked.seed) if asked.start is None
             else from_file(generator, directions.space, asked.start))  # fmt: skip
    folder = asked.out or directions.folder / folder_name(asked, wish, start)
    require_other(folder, asked)
    recipe = walk_recipe(asked, start, directions, cfg.directions.reach)
    return Ready(directions, wish, generator, start, folder, recipe)


def traverse(cfg: Config, asked: Asked) -> Result:
    """Move a latent until the measured quantity has changed as asked.

    The result says what was asked and what was measured, within 5 % of it or
    with the reason why the walk ended before (``reached`` is then false). A walk that
    lies there already is not made again.
    """
    layout = Layout.current()
    ready = _ready(layout, cfg, asked)
    directions, wish, generator, start, folder, recipe = ready
    if (done := written(folder, recipe)) is not None:
        log(f"{folder / RESULT} is up to date")
        log(table(read_frames(folder / "walk.h5", asked.target)))
        return {**done, "skipped": True}
    samples = require_samples(layout, cfg, generator)
    space, batch = directions.space, cfg.sample.batch
    look = observer(generator, samples.names, samples.recipe["noise"], space)
    with StopFlag() as stop:
        route = choose(asked, wish, directions, samples, measurer(look, batch), start.x,
                       cfg.directions.reach, stopper(stop, "traverse"))  # fmt: skip
    length = float(np.linalg.norm(route.nodes[-1] - route.nodes[0]))
    sigma = length / abs(float(route.steps[-1])) if route.steps[-1] else 0.0
    result = _said(asked, wish, samples, route, start, generator)
    if not route.reached:
        log(f"asked {result['asked']:+.4g} {wish.unit}, reached {result['measured']:+.4g}"
            f" {wish.unit}: {route.reason}")  # fmt: skip

    def look_at(count: int) -> Seen:
        return _look_at(generator, space, look, route, start, asked, samples, sigma, batch, count)

    seen = look_at(asked.frames)
    log(table(seen.walk))
    origin = start.label if start.seed is None else f"seed {start.seed}"
    title = f"{asked.target} {result['measured']:+.3g} {wish.unit}, {generator.run}, {origin}"
    about = {"generator": generator.digest, "run": generator.run, "space": space.name,
             "psi": samples.recipe["psi"], "noise": samples.recipe["noise"]}  # fmt: skip
    files = write_all(folder, seen, look_at, asked, generator, about, recipe, result, title)
    return {**result, **files, "skipped": False}


def plan(cfg: Config, asked: Asked) -> Result:
    """Say what `traverse` would do; all that needs no measuring is checked."""
    ready = _ready(Layout.current(), cfg, asked)
    return {
        "quantity": asked.quantity, "component": asked.component, "unit": ready.wish.unit,
        "to" if ready.wish.absolute else "asked": ready.wish.amount, "hold": list(asked.hold),
        "out": str(ready.folder), "exists": written(ready.folder, ready.recipe) is not None,
    }  # fmt: skip
