"""``sunpipe sample``: draw z, map to w, generate, decode, measure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.config import changed_keys, to_dict
from sunpipe.errors import DataError, Stopped
from sunpipe.files import digest
from sunpipe.latent.measure import Look, batches, check_names, observer, units
from sunpipe.latent.samples import (
    Recipe,
    Samples,
    join,
    read_recipe,
    read_samples,
    write_samples,
)
from sunpipe.paths import Layout
from sunpipe.run import require_run, trained_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator

PART_SAMPLES = 512  # saved at least this often


def samples_path(layout: Layout, name: str) -> Path:
    """Where the samples of one generator are."""
    return layout.latents(name) / "samples.h5"


def parts_folder(layout: Layout, name: str) -> Path:
    """Where the parts of an unfinished job are."""
    return layout.latents(name) / "samples-parts"


def load_generator(layout: Layout, name: str) -> Generator:
    """The generator of the newest run of that name."""
    from sunpipe.latent.generator import Generator

    return Generator.load(require_run(layout, name, "run sunpipe train first"))


def recipe_of(generator: Generator, cfg: Config) -> Recipe:
    """All that decides the content of ``samples.h5``."""
    settings = cfg.sample
    return {
        "run": generator.run,
        "generator": generator.digest,
        "num_ws": generator.num_ws,
        "count": settings.count,
        "batch": settings.batch,
        "psi": settings.psi,
        "styles": settings.styles,
        "noise": settings.noise,
        "seed": cfg.seed,
        "pixel_cm": generator.pixel_cm,
        "normalize": to_dict(generator.normalize),
        "channels": list(generator.channels),
        "quantities": check_names(settings.quantities, "sample.quantities"),
    }


def draw(
    generator: Generator, look: Look, recipe: Recipe, rows: slice, poll: Callable[[], None]
) -> Samples:
    """Draw and measure samples `rows` of the job: pure in (recipe, rows).

    `rows` must start at a multiple of the batch, because the rounding of a
    convolution may depend on what shares its batch. `poll` is called before
    each batch and may raise.
    """
    zs, ws, values = [], [], []
    for batch in batches(rows.stop - rows.start, recipe["batch"]):
        poll()
        z = generator.sample_z(batch.stop - batch.start, recipe["seed"], rows.start + batch.start)
        w = generator.map(z, recipe["psi"]).cpu().numpy()
        zs.append(z.cpu().numpy())
        ws.append(w)
        values.append(look(w)[1])
    return Samples(
        w=np.concatenate(ws), z=np.concatenate(zs), names=recipe["quantities"],
        units=units(recipe["quantities"]), values=np.concatenate(values),
        recipe=recipe, start=rows.start,
    )  # fmt: skip


def stopper(stop: StopFlag, stage: str) -> Callable[[], None]:
    """Make the function that a loop calls often: it raises once a signal has come."""

    def poll() -> None:
        if stop:
            if stop.requeue:
                requeue()
            raise Stopped(f"{stage} stopped by {stop.reason}; run the same command to continue")

    return poll


def _finished_part(path: Path, rows: slice) -> Samples | None:
    if not path.exists():
        return None
    try:
        part = read_samples(path)
    except DataError as error:
        log(f"made again: {error}")
        return None
    return part if part.start == rows.start and len(part) == rows.stop - rows.start else None


def _draw_all(
    generator: Generator, recipe: Recipe, folder: Path, poll: Callable[[], None]
) -> Samples:
    look = observer(generator, recipe["quantities"], recipe["noise"])
    size = -(-PART_SAMPLES // recipe["batch"]) * recipe["batch"]
    parts: list[Samples] = []
    for rows in batches(recipe["count"], size):
        path = folder / f"part-{rows.start:08d}.h5"
        part = _finished_part(path, rows)
        if part is None:
            part = draw(generator, look, recipe, rows, poll)
            write_samples(path, part)
        log(f"sample {rows.stop}/{recipe['count']}")
        parts.append(part)
    return join(parts, recipe)


def _why_again(path: Path, recipe: Recipe) -> str | None:
    """Why stored samples cannot be kept; None when they can."""
    try:
        changed = changed_keys(read_recipe(path), recipe)
    except DataError as error:
        return str(error)
    return f"{path} was made with another {', '.join(changed)}" if changed else None


def summary(samples: Samples) -> dict[str, Any]:
    """Median, 16th and 84th percentile, and number of undefined values of each quantity."""
    rows: dict[str, Any] = {}
    for name, unit in zip(samples.names, samples.units, strict=True):
        values = samples.column(name)
        defined = values[np.isfinite(values)]
        low, median, high = (
            np.percentile(defined, [16, 50, 84]).tolist() if len(defined) else (None,) * 3
        )
        rows[name] = {"unit": unit, "median": median, "p16": low, "p84": high,
                      "undefined": len(values) - len(defined)}  # fmt: skip
    return rows


def sample(cfg: Config) -> Result:
    """Make ``latents/<name>/samples.h5``, or say that it is up to date.

    A stopped job continues from its finished parts; the result does not depend
    on where it stopped.
    """
    layout = Layout.current()
    generator = load_generator(layout, cfg.name)
    path, parts = samples_path(layout, cfg.name), parts_folder(layout, cfg.name)
    recipe = recipe_of(generator, cfg)
    why = _why_again(path, recipe) if path.exists() else ""
    if why is None:
        log(f"{path} is up to date")
        samples = read_samples(path)
    else:
        if why:
            log(f"{why}; it is made again")
        with StopFlag() as stop:
            samples = _draw_all(
                generator, recipe, parts / digest(recipe)[:16], stopper(stop, "sample")
            )
        write_samples(path, samples)
        shutil.rmtree(parts, ignore_errors=True)
    return {
        "samples": str(path), "count": len(samples), "run": generator.run,
        "generator": generator.digest, "skipped": why is None, "quantities": summary(samples),
    }  # fmt: skip


def plan(cfg: Config) -> Result:
    """Say what `sample` would do, writing nothing."""
    layout = Layout.current()
    check_names(cfg.sample.quantities, "sample.quantities")
    run, path = trained_run(layout, cfg.name), samples_path(layout, cfg.name)
    return {
        "run": str(run) if run else None, "samples": str(path), "exists": path.exists(),
        "count": cfg.sample.count,
        "finished_parts": len(list(parts_folder(layout, cfg.name).glob("*/part-*.h5"))),
    }  # fmt: skip
