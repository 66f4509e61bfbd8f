"""What one ``sunpipe traverse`` leaves: strip, table, latents, FITS, movie, and the numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.files import write_json, write_text
from sunpipe.fitsorigin import GAUSS
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.direction import Floats
from sunpipe.latent.movie import render, write_movie
from sunpipe.latent.patch_fits import write_patch
from sunpipe.latent.strip import draw_strip
from sunpipe.latent.walks import Walk, write_walk
from sunpipe.stage import Result

if TYPE_CHECKING:
    from sunpipe.latent.ask import Asked
    from sunpipe.latent.generator import Generator
    from sunpipe.latent.space import Space

SCHEMA = 2
MOVIE_FRAMES = 36


@dataclass(frozen=True)
class Seen:
    """Frames of one walk.

    Attributes
    ----------
    walk : Walk
        One base, K steps; images reduced for storage.
    fields : ndarray of float32, shape (K, C, H, W)
        In full.
    x : ndarray, shape (K, D)
        Flat latents of the directions' space.
    w : ndarray of float32, shape (K, w_dim) or (K, num_ws, w_dim)
    """

    walk: Walk
    fields: NDArray[np.float32]
    x: Floats
    w: NDArray[np.float32]


def captions(walk: Walk, unit: str) -> list[str]:
    """Step and target of every frame."""
    if walk.target not in walk.names:
        return [f"{step:+.2f} {unit}" for step in walk.steps]
    values = walk.column(walk.target)[0]
    return [
        f"step {step:+.2f}\n{value:.4g} {unit}"
        for step, value in zip(walk.steps, values, strict=True)
    ]


def table(walk: Walk) -> str:
    """Every quantity at every frame, as aligned text."""
    rows = [["quantity", "unit", *(f"step {step:+.2f}" for step in walk.steps)]]
    for name, unit, column in zip(walk.names, walk.units, walk.values[0].T, strict=True):
        mark = "> " if name == walk.target else ""
        cells = (f"{value:.4g}" if np.isfinite(value) else "-" for value in column)
        rows.append([mark + name, unit or "-", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )  # fmt: skip


def write_csv(path: Path, walk: Walk) -> None:
    """The same as CSV: a row per frame, units in the header, empty where undefined."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    heads = [f"{name} [{unit}]" if unit else name
             for name, unit in zip(walk.names, walk.units, strict=True)]  # fmt: skip
    rows.writerow(["frame", "step", *heads])
    for number, (step, values) in enumerate(zip(walk.steps, walk.values[0], strict=True)):
        cells = [repr(float(value)) if np.isfinite(value) else "" for value in values]
        rows.writerow([number, repr(float(step)), *cells])
    write_text(path, text.getvalue())


def write_latents(path: Path, seen: Seen, about: dict[str, Any]) -> None:
    """``walk.h5``: the last latent as ``w`` and ``x``, all of them, and what was measured."""
    with new_hdf5(path) as file:
        file.attrs["schema"] = SCHEMA
        for key, value in about.items():
            file.attrs[key] = value
        file.create_dataset("w", data=seen.w[-1], fletcher32=True)
        file.create_dataset("x", data=np.asarray(seen.x[-1], np.float64), fletcher32=True)
        file.create_dataset("path", data=seen.w, fletcher32=True)
        write_walk(file, seen.walk)


def _write_fits(
    folder: Path, seen: Seen, every: bool, generator: Generator, result: Result
) -> list[str]:
    """FITS of both ends, or of every frame."""
    walk, written = seen.walk, []
    last = len(walk.steps) - 1
    wanted = range(last + 1) if every else sorted({0, last})
    for number in wanted:
        stem = ("before" if number == 0 else "after") if not every else f"frame{number:02d}"
        values = walk.values[0, number]
        cards = {"SEED": -1 if result["seed"] is None else result["seed"],
                 "WALK": walk.target, "WALKSTEP": float(walk.steps[number])}  # fmt: skip
        cards |= {name: float(value) for name, value in zip(walk.names, values, strict=True)
                  if np.isfinite(value) and len(name) <= 8}  # fmt: skip
        source = f"from {Path(result['from']).name}" if result["from"] else f"seed {result['seed']}"
        written += write_patch(
            folder, stem, seen.fields[number], channels=generator.channels, units=generator.units,
            pixel_cm=generator.pixel_cm, run=generator.run, generator=generator.digest,
            number=number + 1, cards=cards,
            history=(f"Frame {number} of a walk along {walk.target}, {source}.",
                     "Keywords in the physical convention of sunpipe."),
        )  # fmt: skip
    return [str(path) for path in written]


def write_all(
    folder: Path, seen: Seen, look_at: Callable[[int], Seen], asked: Asked, generator: Generator,
    space: Space, recipe: dict[str, Any], result: Result, title: str,
) -> dict[str, Any]:  # fmt: skip
    """Write every file of a walk; ``traverse.json`` comes last.

    Parameters
    ----------
    folder : Path
    seen : Seen
        The frames of the strip and the table.
    look_at : callable
        Number of frames to `Seen`, for the movie.
    asked : Asked
    generator, space : Generator, Space
    recipe : dict
        Of the samples.
    result : dict
    title : str

    Returns
    -------
    dict
        Name of the kind to path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unit = "G" if generator.units[0] in GAUSS else generator.units[0]
    files: dict[str, Any] = {
        "strip": str(folder / "strip.png"), "walk": str(folder / "walk.h5"),
        "table": str(folder / "table.csv"),
    }  # fmt: skip
    side = generator.resolution * generator.pixel_cm / 1e8
    shown = captions(seen.walk, result["unit"])
    draw_strip(seen.walk, folder / "strip.png", f"{title} (side {side:.0f} Mm)", shown, unit)
    write_csv(folder / "table.csv", seen.walk)
    write_latents(folder / "walk.h5", seen, {
        "generator": generator.digest, "run": generator.run, "space": space.name,
        "psi": recipe["psi"], "noise": recipe["noise"],
    })  # fmt: skip
    files["fits"] = _write_fits(folder, seen, asked.fits, generator, result)
    if asked.movie is not None:
        from sunpipe.plots import symmetric_limit

        whole = look_at(MOVIE_FRAMES if len(seen.walk.steps) > 1 else 1)
        texts = [text.replace("\n", ": ") for text in captions(whole.walk, result["unit"])]
        frames = render(whole.walk.images[0], generator.channels,
                        [f"{asked.target}, {text}" for text in texts],
                        symmetric_limit(whole.walk.images), unit, whole.walk.pixel_cm)  # fmt: skip
        write_movie(asked.movie, frames)
        files["movie"] = str(asked.movie)
    write_json(folder / "traverse.json", {"schema": SCHEMA, **result, **files})
    return files
