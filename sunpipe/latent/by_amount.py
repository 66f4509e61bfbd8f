"""``sunpipe traverse``: move one latent until a measured quantity has changed by an amount."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.files import write_json
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.amount import parse_amount
from sunpipe.latent.assemble import require_samples
from sunpipe.latent.calibrate import Found, seek
from sunpipe.latent.direction import Floats
from sunpipe.latent.directions import Directions, read_directions
from sunpipe.latent.generator import Generator
from sunpipe.latent.measure import Look, observer
from sunpipe.latent.sample import load_generator
from sunpipe.latent.samples import Samples
from sunpipe.latent.traverse import walk
from sunpipe.latent.walks import Walk, write_walk
from sunpipe.paths import Layout
from sunpipe.settings import Config
from sunpipe.stage import Result, log

SCHEMA = 1
FRAMES = 5


@dataclass(frozen=True)
class Asked:
    """What ``sunpipe traverse`` was asked for."""

    quantity: str
    by: str
    seed: int = 0
    conditional: bool = False
    out: Path | None = None

    @property
    def kind(self) -> str:
        """Which of the two directions is walked."""
        return "conditional" if self.conditional else "plain"


def room(
    samples: Samples, vector: Floats, base: Floats, reach: float
) -> tuple[float, float, float]:
    """How far a base can be moved, in standard deviations of w along a direction.

    Returns
    -------
    sigma : float
        One standard deviation, in units of w.
    low, high : float
        Steps at which the latent is `reach` standard deviations from the mean
        of the samples along the direction.
    """
    along = np.asarray(samples.w, np.float64) @ vector
    sigma = float(along.std())
    place = float((np.asarray(base, np.float64) @ vector - along.mean()) / sigma)
    return sigma, -reach - place, reach - place


def find(
    look: Look, names: list[str], name: str, base: Floats, move: Floats, change: float,
    low: float, high: float, sign: int = 1,
) -> tuple[Found, Floats, Floats]:  # fmt: skip
    """Walk from `base` until quantity `name` has changed by `change`; arguments as in `seek`.

    Returns
    -------
    found : Found
    before, after : ndarray, shape (Q,)
        All quantities at both ends.
    """
    place = names.index(name)

    def values(steps: Floats) -> Floats:
        return look((base + np.asarray(steps)[:, None] * move).astype(np.float32))[1]

    before = values(np.zeros(1))[0]
    if not np.isfinite(before[place]):
        raise DataError(f"{name} is undefined for this latent; try another --seed")
    start = float(before[place])
    found = seek(lambda steps: values(steps)[:, place], start, change, low, high, sign)
    return found, before, values(np.array([found.step]))[0]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def changes(names: list[str], units: list[str], before: Floats, after: Floats) -> dict[str, Any]:
    """Before, after and change of every quantity; None where undefined."""
    return {
        name: {"before": _number(old), "after": _number(new), "change": _number(new - old),
               "unit": unit}
        for name, unit, old, new in zip(names, units, before, after, strict=True)
    }  # fmt: skip


def _strip(found: Walk, path: Path, title: str) -> None:
    """Frames of a walk, a row per field component, with one colour bar in gauss."""
    from sunpipe import plots

    images, values = found.images[0], found.column(found.target)[0]
    unit = found.units[found.names.index(found.target)]
    frames, channels = images.shape[:2]
    limit = plots.symmetric_limit(images)
    figure = plots.new_figure(1.5 * frames + 1.1, 1.5 * channels + 0.6)
    grid = figure.subplots(channels, frames, squeeze=False)
    for row in range(channels):
        for column in range(frames):
            picture = plots.show_field(grid[row][column], images[column, row], limit)
        grid[row][0].set_ylabel(found.channels[row])
    for column in range(frames):
        grid[0][column].set_title(
            f"step {found.steps[column]:+.2f}\n{values[column]:.4g} {unit}", fontsize=8
        )
    side = images.shape[-1] * found.pixel_cm / 1e8
    figure.colorbar(picture, ax=grid, pad=0.02).set_label("field (G)")
    figure.suptitle(f"{title} (side {side:.0f} Mm)", fontsize=9, color=plots.INK)
    plots.save(figure, path, dpi=130)


def _write(
    folder: Path, found: Walk, w: Floats, directions: Directions, result: Result, title: str
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _strip(found, folder / "strip.png", title)
    with new_hdf5(folder / "walk.h5") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["generator"] = directions.about["generator"]
        file.create_dataset("w", data=np.asarray(w, np.float32))
        write_walk(file, found)
    write_json(folder / "traverse.json", {"schema": SCHEMA, **result})


def _folder(layout: Layout, name: str, asked: Asked, amount: float) -> Path:
    if asked.out is not None:
        return asked.out
    tail = "-conditional" if asked.conditional else ""
    return layout.latents(name) / f"traverse-{asked.quantity}-by{amount:+g}-seed{asked.seed}{tail}"


def _understand(folder: Path, asked: Asked) -> tuple[Directions, float, str]:
    """The directions, the amount and its unit; refuses what cannot be walked."""
    directions = read_directions(folder)
    directions.vector(asked.quantity, asked.conditional)
    unit = directions.quantities[asked.quantity]["unit"]
    return directions, parse_amount(asked.by, asked.quantity, unit), unit


def traverse(cfg: Config, asked: Asked) -> Result:
    """Move the latent of a seed until the measured quantity has changed as asked.

    The result says what was asked and what was measured, within 5 % of it or
    with the reason why the walk ended before (``reached`` is then false).
    """
    layout = Layout.current()
    folder = layout.latents(cfg.name)
    directions, amount, unit = _understand(folder, asked)
    vector = directions.vector(asked.quantity, asked.conditional)
    generator: Generator = load_generator(layout, cfg.name)
    directions.require(generator)
    samples = require_samples(layout, cfg, generator)
    z = generator.sample_z(1, asked.seed)
    base = generator.map(z, samples.recipe["psi"]).cpu().numpy().astype(np.float64)
    sigma, low, high = room(samples, vector, base[0], cfg.directions.reach)
    look = observer(generator, samples.names, samples.recipe["noise"])
    names, units = samples.names, samples.units
    found, before, after = find(
        look, names, asked.quantity, base, vector * sigma, amount, low, high,
        directions.sign(asked.quantity, asked.kind),
    )  # fmt: skip
    change = found.after - found.before
    if not found.reached:
        log(f"asked {amount:+.4g} {unit}, reached {change:+.4g} {unit}: {found.reason}")
    target = _folder(layout, cfg.name, asked, amount)
    others = changes(names, units, before, after)
    others.pop(asked.quantity)
    result: Result = {
        "quantity": asked.quantity, "asked": amount, "measured": change, "unit": unit,
        "before": found.before, "after": found.after, "step": found.step,
        "reached": found.reached, "reason": found.reason, "conditional": asked.conditional,
        "seed": asked.seed, "run": generator.run, "generator": generator.digest,
        "others": others, "strip": str(target / "strip.png"), "walk": str(target / "walk.h5"),
    }  # fmt: skip
    steps = np.linspace(0.0, found.step, FRAMES) if found.step else np.zeros(1)
    strip = walk(
        look, base, np.array([asked.seed]), vector * sigma, steps, target=asked.quantity,
        kind=asked.kind, names=names, units=units, channels=list(generator.channels),
        pixel_cm=generator.pixel_cm, batch=cfg.sample.batch, poll=lambda: None,
    )  # fmt: skip
    title = f"{asked.quantity} {change:+.3g} {unit}, {generator.run}, seed {asked.seed}"
    _write(target, strip, base + steps[:, None] * (vector * sigma), directions, result, title)
    return result


def plan(cfg: Config, asked: Asked) -> Result:
    """Say what `traverse` would do; the amount and the direction are checked."""
    folder = Layout.current().latents(cfg.name)
    _, amount, unit = _understand(folder, asked)
    return {
        "quantity": asked.quantity, "asked": amount, "unit": unit,
        "out": str(_folder(Layout.current(), cfg.name, asked, amount)),
    }  # fmt: skip
