"""``sunpipe sample``: draw z, map to w, generate, decode, measure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.config import changed_keys, to_dict
from sunpipe.errors import DataError, Stopped
from sunpipe.files import digest, read_json
from sunpipe.latent.draw import draw
from sunpipe.latent.measure import batches, check_names, observer
from sunpipe.latent.samples import (
    Recipe,
    Samples,
    read_recipe,
    read_samples,
    read_values,
    write_parts,
    write_samples,
)
from sunpipe.parts import share
from sunpipe.paths import Layout
from sunpipe.run import require_run, trained_run
from sunpipe.settings import Config
from sunpipe.stage import Result, log
from sunpipe.stop import StopFlag, requeue_if_progress

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


def planned_names(run: Path | None, names: Sequence[str], key: str) -> list[str]:
    """Quantities that a run's generator can be measured by; as asked where there is no run."""
    config = run / "config.json" if run is not None else None
    if config is None or not config.is_file():
        return list(names)
    return check_names(names, key, read_json(config)["data"]["channels"])


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
        "quantities": check_names(settings.quantities, "sample.quantities", generator.channels),
    }


def stopper(stop: StopFlag, stage: str, parts: Path | None = None) -> Callable[[], None]:
    """Make the function that a loop calls often: it raises once a signal has come.

    Parameters
    ----------
    parts : Path, optional
        Folder of the files that the next start finds finished.
    """

    def poll() -> None:
        if stop:
            if stop.requeue:
                done = len(list(parts.glob("*"))) if parts else 0
                requeue_if_progress(stage, done)
            raise Stopped(f"{stage} stopped by {stop.reason}; run the same command to continue")

    return poll


def blocks(recipe: Recipe) -> list[slice]:
    """Samples that are saved together, and shared out to array tasks."""
    size = -(-PART_SAMPLES // recipe["batch"]) * recipe["batch"]
    return list(batches(recipe["count"], size))


def _block_path(folder: Path, rows: slice) -> Path:
    return folder / f"part-{rows.start:08d}.h5"


def _finished_part(folder: Path, rows: slice) -> Samples | None:
    path = _block_path(folder, rows)
    if not path.exists():
        return None
    try:
        part = read_samples(path)
    except DataError as error:
        log(f"made again: {error}")
        return None
    return part if part.start == rows.start and len(part) == rows.stop - rows.start else None


def _draw_blocks(
    generator: Generator, recipe: Recipe, folder: Path, mine: list[slice],
    poll: Callable[[], None],
) -> None:  # fmt: skip
    """Make those of this task's blocks that are not there."""
    look = observer(generator, recipe["quantities"], recipe["noise"])
    for number, rows in enumerate(mine, start=1):
        if _finished_part(folder, rows) is None:
            part = draw(generator, look, recipe, rows, poll)
            write_samples(_block_path(folder, rows), part)
        log(f"samples to {rows.stop} of {recipe['count']}: block {number}/{len(mine)}")


def _publish(path: Path, folder: Path, recipe: Recipe) -> list[str]:
    """Join the blocks when all are there; else names of those that are not."""
    rows = blocks(recipe)
    waiting = [_block_path(folder, each).name for each in rows
               if not _block_path(folder, each).exists()]  # fmt: skip
    if waiting:
        return [] if _why_again(path, recipe) is None else waiting

    def parts() -> Iterator[Samples]:
        for each in rows:
            part = _finished_part(folder, each)
            if part is None:
                waiting.append(_block_path(folder, each).name)
                return
            yield part

    try:
        write_parts(path, parts(), recipe["count"])
    except DataError:
        if not waiting:
            raise
        # Another task that saw the last block may have joined and cleaned up meanwhile.
        return [] if _why_again(path, recipe) is None else waiting
    shutil.rmtree(folder.parent, ignore_errors=True)
    return []


def _why_again(path: Path, recipe: Recipe) -> str | None:
    """Why stored samples cannot be kept, empty when there are none; None when they can."""
    if not path.exists():
        return ""
    try:
        changed = changed_keys(read_recipe(path), recipe)
    except DataError as error:
        return str(error)
    return f"{path} was made with another {', '.join(changed)}" if changed else None


def summary(path: Path) -> dict[str, Any]:
    """Median, 16th and 84th percentile, and number of undefined values of each quantity."""
    rows: dict[str, Any] = {}
    names, units_, values = read_values(path)
    for name, unit, column in zip(names, units_, values.T, strict=True):
        defined = column[np.isfinite(column)]
        low, median, high = (
            np.percentile(defined, [16, 50, 84]).tolist() if len(defined) else (None,) * 3
        )
        rows[name] = {"unit": unit, "median": median, "p16": low, "p84": high,
                      "undefined": len(column) - len(defined)}  # fmt: skip
    return rows


def sample(cfg: Config, part: tuple[int, int] | None = None) -> Result:
    """Draw this part's blocks of samples (all without), join them when all are there.

    A stopped job continues from its finished blocks; the samples depend neither on
    where it stopped nor on the number of parts.
    """
    layout = Layout.current()
    generator = load_generator(layout, cfg.name)
    path = samples_path(layout, cfg.name)
    recipe = recipe_of(generator, cfg)
    folder = parts_folder(layout, cfg.name) / digest(recipe)[:16]
    index, count = part or (1, 1)
    why = _why_again(path, recipe)
    result: Result = {"samples": str(path), "count": recipe["count"], "run": generator.run,
                      "generator": generator.digest, "skipped": why is None}  # fmt: skip
    if why is None:
        log(f"{path} is up to date")
    else:
        if why:
            log(f"{why}; it is made again")
        with StopFlag() as stop:
            mine = share(blocks(recipe), (index, count))
            _draw_blocks(generator, recipe, folder, mine, stopper(stop, "sample", folder))
        waiting = _publish(path, folder, recipe)
        if waiting:
            return {**result, "complete": False, "part": f"{index}/{count}",
                    "waiting_for": waiting}  # fmt: skip
    return {**result, "complete": True, "quantities": summary(path)}


def plan(cfg: Config, part: tuple[int, int] | None = None) -> Result:
    """Say what `sample` would do, writing nothing."""
    layout = Layout.current()
    run, path = trained_run(layout, cfg.name), samples_path(layout, cfg.name)
    planned_names(run, cfg.sample.quantities, "sample.quantities")
    index, count = part or (1, 1)
    mine = share(blocks({"batch": cfg.sample.batch, "count": cfg.sample.count}), (index, count))
    return {
        "run": str(run) if run else None, "samples": str(path), "exists": path.exists(),
        "count": cfg.sample.count, "part": f"{index}/{count}", "blocks": len(mine),
        "finished_parts": len(list(parts_folder(layout, cfg.name).glob("*/part-*.h5"))),
    }  # fmt: skip
