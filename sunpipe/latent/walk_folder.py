"""The folder of a walk: its name, what decides its content, and whether it may be replaced."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe.errors import DataError, UsageError
from sunpipe.files import digest, read_json, sha256
from sunpipe.latent.ask import Asked, Wish

if TYPE_CHECKING:
    from sunpipe.latent.directions import Directions
    from sunpipe.latent.start import Start

SCHEMA = 3
LONGEST = 180  # letters of a folder's name; file systems take 255 bytes
RESULT = "traverse.json"
INSIDE = ("strip", "walk", "table", "fits")  # keys of the result that name files of the folder


def start_digest(start: Start) -> str:
    """SHA-256 of the latent that a walk begins with."""
    return hashlib.sha256(np.ascontiguousarray(start.x, "<f8").tobytes()).hexdigest()


def folder_name(asked: Asked, wish: Wish, start: Start) -> str:
    """Name of the folder a walk is written to; walks that differ have names that differ."""
    tail = "-conditional" if asked.conditional else ""
    for word, given in (("against", asked.against), ("hold", asked.hold)):
        tail += "".join(f"-{each}" for each in (word, *given)) if given else ""
    tail += f"-within{asked.hold_tolerance:g}" if asked.hold else ""
    tail += "" if asked.path == "auto" else f"-{asked.path}"
    far = f"to{wish.amount:.10g}" if wish.absolute else f"by{wish.amount:+.10g}"
    label = start.label if start.source is None else f"{start.label[:24]}-{start_digest(start)[:8]}"
    name = f"traverse-{asked.target}-{far}-{label}{tail}"
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}-{digest(name)[:8]}"


def walk_recipe(asked: Asked, start: Start, directions: Directions, reach: float) -> dict[str, Any]:
    """All that decides what a walk leaves, JSON-able."""
    said = asdict(asked)
    del said["out"], said["start"], said["seed"]  # the latent itself is what counts
    said["movie"] = None if asked.movie is None else str(asked.movie)
    return {
        "asked": {**said, "against": list(asked.against), "hold": list(asked.hold)},
        "start": start_digest(start), "seed": start.seed, "from": start.source,
        "directions": digest(directions.about), "reach": reach,
    }  # fmt: skip


def _files(result: dict[str, Any], kinds: tuple[str, ...]) -> list[Path]:
    """Files that a result names."""
    named = [result.get(kind) or [] for kind in kinds]
    return [Path(path) for each in named for path in ([each] if isinstance(each, str) else each)]


def written(folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a walk that was made by `recipe`, or None where there is none.

    Raises
    ------
    DataError
        `folder` holds what no walk has written: it would be replaced.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give another --out")
    held = {found.name for found in folder.iterdir()}
    if not held:
        return None
    if RESULT not in held:
        raise DataError(f"{folder} is not empty and holds no walk; give another --out")
    result: dict[str, Any] = read_json(folder / RESULT)
    if not isinstance(result, dict):
        raise DataError(f"{folder / RESULT} is no result of a walk; give another --out")
    inside, files = _files(result, INSIDE), _files(result, (*INSIDE, "movie"))
    if others := sorted(held - {RESULT, *(path.name for path in files)}):
        raise DataError(
            f"{folder} also holds {others[0]}, which its walk has not written; give another --out"
        )
    same = result.pop("schema", None) == SCHEMA and result.pop("recipe", None) == recipe
    moved = any(path.resolve().parent != folder.resolve() for path in inside)  # by hand
    if not same or moved or not all(path.is_file() for path in files):
        return None
    if "movie" in result and sha256(Path(result["movie"])) != result["movie_sha256"]:
        return None  # a movie may lie elsewhere, and another walk may have written it since
    return result


def require_other(folder: Path, asked: Asked) -> None:
    """Refuse to replace the walk that this one begins with."""
    if asked.start is not None and folder.resolve() in asked.start.resolve().parents:
        raise UsageError(f"--from {asked.start} lies in {folder}, which is replaced; give another"
                         " --out")  # fmt: skip
