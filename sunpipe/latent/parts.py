"""Array tasks of a fit: which quantities a task takes, and what it leaves for the assembly."""

from __future__ import annotations

import json
from pathlib import Path

from sunpipe.errors import DataError
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.fit import Fitted
from sunpipe.latent.walks import read_walk, write_walk

SCHEMA = 1


def part_path(folder: Path, name: str) -> Path:
    """File of one finished quantity."""
    return folder / f"{name}.h5"


def write_part(folder: Path, fitted: Fitted) -> None:
    """Keep one quantity's result."""
    with new_hdf5(part_path(folder, fitted.name)) as file:
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
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # h5py's several
        raise DataError(f"{path} cannot be read ({error})") from None
