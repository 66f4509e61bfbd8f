"""``sunpipe directions fit``: do the missing quantities, publish when all are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.config import changed_keys, to_dict
from sunpipe.errors import DataError
from sunpipe.files import digest
from sunpipe.latent.components import component_name, component_vectors
from sunpipe.latent.directions import (
    read_about,
    read_directions,
    write_directions,
)
from sunpipe.latent.fit import (
    RANDOM,
    Fitted,
    Together,
    fit_component,
    fit_quantity,
    fit_random,
)
from sunpipe.latent.gather import gather
from sunpipe.latent.generator import Generator
from sunpipe.latent.measure import check_names, observer
from sunpipe.latent.parts import part_path, read_part, write_part
from sunpipe.latent.prepare import Prepared, prepare
from sunpipe.latent.sample import load_generator, planned_names, samples_path, stopper
from sunpipe.latent.samples import Samples, read_samples
from sunpipe.latent.show import summary
from sunpipe.latent.traverse import walk
from sunpipe.parts import share
from sunpipe.paths import Layout
from sunpipe.provenance import provenance
from sunpipe.run import trained_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag


def recipe_of(generator: Generator, samples: Samples, cfg: Config) -> dict[str, Any]:
    """All that decides the directions."""
    settings = to_dict(cfg.directions)
    del settings["reach"]  # where a later traverse ends, no matter here
    return {
        "generator": generator.digest,
        "samples": digest(samples.recipe),
        "settings": settings,
        "seed": cfg.seed,
    }


def require_samples(layout: Layout, cfg: Config, generator: Generator) -> Samples:
    """Samples of exactly this generator, or a `DataError`."""
    path = samples_path(layout, cfg.name)
    samples = read_samples(path)
    if samples.recipe["generator"] != generator.digest:
        raise DataError(
            f"{path} was drawn from another generator ({samples.recipe['generator'][:12]});"
            f" {generator.run} is now {generator.digest[:12]}; run sunpipe sample again"
        )
    return samples


def _walker(
    p: Prepared, generator: Generator, cfg: Config, poll: Callable[[], None]
) -> Callable[..., Any]:
    rows, names = p.base_rows, p.samples.names
    look = observer(generator, names, p.samples.recipe["noise"], p.space)

    def walker(moves: Any, *, target: str, kind: str) -> Any:
        log(f"directions: walking {target} {'' if kind == target else kind}".rstrip())
        return walk(
            look, p.x[rows], rows, moves, np.asarray(p.settings.steps, np.float64),
            target=target, kind=kind, names=names, units=p.samples.units,
            channels=list(generator.channels), pixel_cm=generator.pixel_cm,
            batch=cfg.sample.batch, poll=poll,
        )  # fmt: skip

    return walker


def job_names(p: Prepared) -> list[str]:
    """All that is walked: quantities, principal components, the random control."""
    count = len(component_vectors(p))
    return [*p.names, *map(component_name, range(count)), RANDOM]


def _do(p: Prepared, name: str, walker: Callable[..., Any], together: Together) -> Fitted:
    if name == RANDOM:
        return fit_random(p, walker)
    if name in p.names:
        return fit_quantity(p, name, walker, together)
    return fit_component(p, job_names(p).index(name) - len(p.names), name, walker)


def _up_to_date(folder: Path, recipe: dict[str, Any]) -> bool:
    if not (folder / "directions.json").exists():
        return False
    try:
        stored = read_about(folder)["recipe"]
        read_directions(folder)
    except (DataError, KeyError) as error:
        log(f"{error}; directions are fitted again")
        return False
    changed = changed_keys(stored, recipe)
    if changed:
        log(f"directions were fitted with another {', '.join(changed)}; they are fitted again")
    return not changed


def _finished(parts: Path, name: str) -> Fitted | None:
    """One quantity's result; a damaged one counts as missing, so that it is made again."""
    if not part_path(parts, name).exists():
        return None
    try:
        return read_part(parts, name)
    except DataError as error:
        log(f"{error}; {name} is fitted again")
        return None


def _publish(folder: Path, parts: Path, p: Prepared, about: dict[str, Any]) -> bool:
    """Assemble when every quantity is there; False when some are not."""
    wanted = job_names(p)
    if not all(part_path(parts, name).exists() for name in wanted):
        return False
    found = [_finished(parts, name) for name in wanted]
    whole = [each for each in found if each is not None]
    if len(whole) < len(found):
        # Another task that saw the last part may have published and cleaned up meanwhile.
        return _up_to_date(folder, about["recipe"])
    write_directions(folder, *gather(p, whole[:-1], whole[-1], about))
    shutil.rmtree(parts.parent, ignore_errors=True)
    return True


def fit(cfg: Config, part: tuple[int, int] | None = None) -> Result:
    """Fit, judge and walk the quantities of this part (all without), publish when complete.

    A stopped fit continues from its finished quantities, whatever the number of
    parts it was cut into.
    """
    layout = Layout.current()
    folder = layout.latents(cfg.name)
    generator = load_generator(layout, cfg.name)
    if cfg.directions.quantities:
        check_names(cfg.directions.quantities, "directions.quantities", generator.channels)
    samples = require_samples(layout, cfg, generator)
    recipe = recipe_of(generator, samples, cfg)
    if _up_to_date(folder, recipe):
        log(f"{folder / 'directions.json'} is up to date")
        return {**summary(folder), "skipped": True}
    p = prepare(samples, cfg.directions, cfg.seed)
    for name, why in p.left_out.items():
        log(f"{name} is left out: {why}")
    parts = folder / "directions-parts" / digest(recipe)[:16]
    index, count = part or (1, 1)
    with StopFlag() as stop:
        walker = _walker(p, generator, cfg, stopper(stop, "directions fit", parts))
        jobs = job_names(p)
        missing = [name for name in share(jobs, (index, count)) if _finished(parts, name) is None]
        together = Together.of(p, [name for name in missing if name in p.names])
        for name in missing:
            write_part(parts, _do(p, name, walker, together))
    about = {
        "run": generator.run, "generator": generator.digest, "space": p.space.describe(),
        "pixel_cm": generator.pixel_cm, "channels": list(generator.channels),
        "convention": "physical", "recipe": recipe, "sample_count": len(samples),
        "provenance": provenance(),
    }  # fmt: skip
    if _publish(folder, parts, p, about):
        return {**summary(folder), "skipped": False}
    waiting = [name for name in jobs if _finished(parts, name) is None]
    return {"directions": str(folder), "complete": False, "part": f"{index}/{count}",
            "waiting_for": waiting, "left_out": p.left_out, "skipped": False}  # fmt: skip


def plan(cfg: Config, part: tuple[int, int] | None = None) -> Result:
    """Say what `fit` would do, writing nothing."""
    layout = Layout.current()
    run, path = trained_run(layout, cfg.name), samples_path(layout, cfg.name)
    names = planned_names(
        run, cfg.directions.quantities or cfg.sample.quantities, "directions.quantities"
    )
    index, count = part or (1, 1)
    return {
        "run": str(run) if run else None, "samples": str(path), "samples_exist": path.exists(),
        "part": f"{index}/{count}", "quantities": share(names, (index, count)),
        "directions": str(layout.latents(cfg.name)),
    }  # fmt: skip
