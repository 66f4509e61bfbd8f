"""``samples.h5``: w, z and the measured quantities of generated patches (contract C7).

::

    /w (N, w_dim) float32      /z (N, z_dim) float32
    /quantities/<NAME> (N,) float64, attribute unit; NaN where undefined
    attributes: schema, start, and the recipe (run, generator, psi, noise, seed, ...)

A part of an unfinished job has the same shape and ``start`` above 0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.hdf5 import new_hdf5
from sunpipe.provenance import provenance

SCHEMA = 2
Recipe = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """Generated patches by their latents and measured quantities.

    Attributes
    ----------
    w, z : ndarray of float32, shapes (N, w_dim) and (N, z_dim)
    names, units : list of str
        Measured quantities (Q) and their units.
    values : ndarray of float64, shape (N, Q)
        NaN where undefined.
    recipe : dict
        All that decides the content: run, generator (digest), num_ws, count,
        batch, psi, styles, noise, seed, pixel_cm, normalize, channels, quantities.
    start : int
        Number of the first sample.
    """

    w: NDArray[np.float32]
    z: NDArray[np.float32]
    names: list[str]
    units: list[str]
    values: NDArray[np.float64]
    recipe: Recipe
    start: int = 0

    def __len__(self) -> int:
        return len(self.w)

    def column(self, name: str) -> NDArray[np.float64]:
        """One quantity, shape (N,)."""
        return self.values[:, self.names.index(name)]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def write_samples(path: Path, samples: Samples) -> None:
    """Write samples or a part of them, atomically."""
    with new_hdf5(path) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["start"] = samples.start
        for key, value in samples.recipe.items():
            file.attrs[key] = _plain(value)
        file.attrs["provenance"] = json.dumps(provenance())
        for name, rows in (("w", samples.w), ("z", samples.z)):
            file.create_dataset(name, data=rows, fletcher32=True)
        for number, (name, unit) in enumerate(zip(samples.names, samples.units, strict=True)):
            column = file.create_dataset(
                f"quantities/{name}", data=samples.values[:, number], fletcher32=True
            )
            column.attrs["unit"] = unit


def _recipe(attrs: Any) -> Recipe:
    recipe: Recipe = {}
    for key, value in attrs.items():
        if key in ("schema", "start", "provenance"):
            continue
        if isinstance(value, str) and value[:1] in "[{":
            value = json.loads(value)
        recipe[key] = value.item() if isinstance(value, np.generic) else value
    return recipe


def _open(path: Path) -> Any:
    import h5py

    if not path.is_file():
        raise DataError(f"{path} does not exist; run sunpipe sample first")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"cannot open {path} ({error}); remove it and run sunpipe sample") from None
    schema = file.attrs.get("schema")
    if schema != SCHEMA:
        file.close()
        raise DataError(
            f"{path} has schema {schema}, this version reads {SCHEMA}; run sunpipe sample again"
        )
    return file


def read_recipe(path: Path) -> Recipe:
    """What made a samples file, without its rows."""
    with _open(path) as file:
        return _recipe(file.attrs)


def read_samples(path: Path) -> Samples:
    """Read a samples file whole; a damaged one is a `DataError`."""
    with _open(path) as file:
        try:
            recipe = _recipe(file.attrs)
            names = list(recipe["quantities"])
            columns = [file["quantities"][name] for name in names]
            return Samples(
                w=file["w"][:], z=file["z"][:], names=names,
                units=[str(column.attrs["unit"]) for column in columns],
                values=np.stack([column[:] for column in columns], axis=1),
                recipe=recipe, start=int(file.attrs["start"]),
            )  # fmt: skip
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{path} is damaged ({error}); remove it and run sunpipe sample"
            ) from None


def join(parts: list[Samples], recipe: Recipe) -> Samples:
    """One set of samples from parts that follow each other without a gap."""
    position = 0
    for part in parts:
        if part.start != position:
            raise DataError(f"samples {position} to {part.start} are missing")
        position += len(part)
    return Samples(
        w=np.concatenate([part.w for part in parts]),
        z=np.concatenate([part.z for part in parts]),
        names=parts[0].names, units=parts[0].units,
        values=np.concatenate([part.values for part in parts]), recipe=recipe,
    )  # fmt: skip
