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

from sunpipe.files import atomic_folder, sha256, write_json, write_text
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.direction import Floats
from sunpipe.latent.movie import render, write_movie
from sunpipe.latent.patch_fits import quantity_cards, write_patch
from sunpipe.latent.strip import draw_strip
from sunpipe.latent.walk_folder import RESULT, SCHEMA
from sunpipe.latent.walks import Walk, read_walk, write_walk
from sunpipe.stage import Result

if TYPE_CHECKING:
    from sunpipe.latent.ask import Asked
    from sunpipe.latent.generator import Generator

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


def read_frames(path: Path, target: str) -> Walk:
    """The frames of a ``walk.h5``."""
    import h5py

    with h5py.File(path, "r") as file:
        return read_walk(file, target, next(iter(file[target])))


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
        measured, said = quantity_cards(walk.names, values)
        source = f"from {Path(result['from']).name}" if result["from"] else f"seed {result['seed']}"
        written += write_patch(
            folder, stem, seen.fields[number], channels=generator.channels, units=generator.units,
            pixel_cm=generator.pixel_cm, run=generator.run, generator=generator.digest,
            number=number + 1, cards=cards | measured,
            history=(f"Frame {number} of a walk along {walk.target}, {source}.",
                     "Keywords in the physical convention of sunpipe.", *said),
        )  # fmt: skip
    return [path.name for path in written]


def _write_movie(path: Path, whole: Seen, asked: Asked, unit: str, generator: Generator) -> None:
    texts = [text.replace("\n", ": ") for text in captions(whole.walk, unit)]
    frames = render(whole.walk.images[0], generator.channels,
                    [f"{asked.target}, {text}" for text in texts], generator.units,
                    whole.walk.pixel_cm)  # fmt: skip
    write_movie(path, frames)


def write_all(
    folder: Path, seen: Seen, look_at: Callable[[int], Seen], asked: Asked, generator: Generator,
    about: dict[str, Any], recipe: dict[str, Any], result: Result, title: str,
) -> dict[str, Any]:  # fmt: skip
    """Write every file of a walk, or none: the folder gets its name when it is whole.

    A folder of that name is replaced; `sunpipe.latent.walk_folder.written` says whether it may be.
    A movie beside the folder is written before.

    Parameters
    ----------
    folder : Path
    seen : Seen
        The frames of the strip and the table.
    look_at : callable
        Number of frames to `Seen`, for the movie.
    asked : Asked
    generator : Generator
    about : dict
        Attributes of ``walk.h5``.
    recipe : dict
        `sunpipe.latent.walk_folder.walk_recipe`.
    result : dict
    title : str

    Returns
    -------
    dict
        Name of the kind to path.
    """
    side = generator.resolution * generator.pixel_cm / 1e8
    shown = captions(seen.walk, result["unit"])
    with atomic_folder(folder) as inside:
        draw_strip(seen.walk, inside / "strip.png", f"{title} (side {side:.0f} Mm)", shown,
                   generator.units)  # fmt: skip
        write_csv(inside / "table.csv", seen.walk)
        write_latents(inside / "walk.h5", seen, about)
        fits = _write_fits(inside, seen, asked.fits, generator, result)
        files: dict[str, Any] = {
            "strip": str(folder / "strip.png"), "walk": str(folder / "walk.h5"),
            "table": str(folder / "table.csv"), "fits": [str(folder / name) for name in fits],
        }  # fmt: skip
        if asked.movie is not None:
            whole = look_at(MOVIE_FRAMES if len(seen.walk.steps) > 1 else 1)
            own = asked.movie.resolve().parent == folder.resolve()
            movie = inside / asked.movie.name if own else asked.movie
            _write_movie(movie, whole, asked, result["unit"], generator)
            files |= {"movie": str(asked.movie), "movie_sha256": sha256(movie)}
        write_json(inside / RESULT, {"schema": SCHEMA, "recipe": recipe, **result, **files})
    return files
