"""Array tasks of a fit: which quantities a task takes, and what it leaves for the assembly."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from sunpipe.errors import DataError, UsageError
from sunpipe.files import atomic_path
from sunpipe.latent.fit import Fitted
from sunpipe.latent.walks import read_walk, write_walk

SCHEMA = 1
Item = TypeVar("Item")


def parse_part(text: str) -> tuple[int, int]:
    """``I/N`` to (I, N), I from 1 to N as in ``sunpipe embed``.

    Raises
    ------
    UsageError
        Anything else.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"--part {text!r}: write I/N with I from 1 to N, for example 1/4")
    return int(match[1]), int(match[2])


def share(items: Sequence[Item], part: tuple[int, int]) -> list[Item]:
    """Items of part (I, N): every N-th from the I-th on."""
    index, count = part
    return list(items[index - 1 :: count])


def part_path(folder: Path, name: str) -> Path:
    """File of one finished quantity."""
    return folder / f"{name}.h5"


def write_part(folder: Path, fitted: Fitted) -> None:
    """Keep one quantity's result."""
    import h5py

    with (
        atomic_path(part_path(folder, fitted.name)) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        file.attrs["schema"] = SCHEMA
        file.attrs["about"] = json.dumps(fitted.about)
        for kind, vector in fitted.vectors.items():
            file.create_dataset(f"vectors/{kind}", data=vector, fletcher32=True)
        file.attrs["walks"] = [walk.kind for walk in fitted.walks]
        for walk in fitted.walks:
            write_walk(file, walk)


def read_part(folder: Path, name: str) -> Fitted:
    """Read one quantity's result; a `DataError` when it is missing or damaged."""
    import h5py

    path = part_path(folder, name)
    try:
        with h5py.File(path, "r") as file:
            if file.attrs["schema"] != SCHEMA:
                raise DataError(f"{path} has schema {file.attrs['schema']}")
            kinds = [str(kind) for kind in file.attrs["walks"]]
            vectors = file.get("vectors", {})
            return Fitted(
                name=name, about=json.loads(file.attrs["about"]),
                vectors={kind: vectors[kind][:] for kind in vectors},
                walks=[read_walk(file, name, kind) for kind in kinds],
            )  # fmt: skip
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from None
