"""``samples.h5``: w, z and the measured quantities of generated patches (contract C7).

::

    /w (N, w_dim) float32      /z (N, z_dim) float32
    /w_plus (N, num_ws, w_dim) /z2 (N, z_dim) /crossover (N,)   of samples of two styles
    /quantities/<NAME> (N,) float64, attribute unit; NaN where undefined
    attributes: schema, start, and the recipe (run, generator, psi, noise, seed, ...)

A part of an unfinished job has the same shape and ``start`` above 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.hdf5 import new_hdf5
from sunpipe.provenance import provenance

SCHEMA = 2
CHUNK_BYTES = 1 << 20
Recipe = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """Generated patches by their latents and measured quantities.

    Attributes
    ----------
    w : ndarray of float32, shape (N, w_dim) or (N, num_ws, w_dim)
        What made each patch, as `Generator.fields` takes it; a w for each layer
        in samples of two styles.
    z : ndarray of float32, shape (N, z_dim)
    names, units : list of str
        Measured quantities (Q) and their units.
    values : ndarray of float64, shape (N, Q)
        NaN where undefined.
    recipe : dict
        All that decides the content: run, generator (digest), num_ws, count,
        batch, psi, styles, noise, seed, pixel_cm, normalize, channels, quantities.
    start : int
        Number of the first sample.
    z2 : ndarray of float32, shape (N, z_dim), optional
        Second latent of samples of two styles.
    crossover : ndarray of int64, shape (N,), optional
        First layer that takes its w from `z2`.
    """

    w: NDArray[np.float32]
    z: NDArray[np.float32]
    names: list[str]
    units: list[str]
    values: NDArray[np.float64]
    recipe: Recipe
    start: int = 0
    z2: NDArray[np.float32] | None = None
    crossover: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.w)

    def column(self, name: str) -> NDArray[np.float64]:
        """One quantity, shape (N,)."""
        return self.values[:, self.names.index(name)]


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


def _datasets(samples: Samples) -> Iterator[tuple[str, NDArray[Any], str | None]]:
    """Name in the file, rows, and unit."""
    if samples.w.ndim == 3:
        yield "w", samples.w[:, 0], None  # the crossover is above layer 0
        yield "w_plus", samples.w, None
        assert samples.z2 is not None
        assert samples.crossover is not None
        yield "z2", samples.z2, None
        yield "crossover", samples.crossover, None
    else:
        yield "w", samples.w, None
    yield "z", samples.z, None
    for number, (name, unit) in enumerate(zip(samples.names, samples.units, strict=True)):
        yield f"quantities/{name}", samples.values[:, number], unit


def _chunk(rows: NDArray[Any], count: int) -> tuple[int, ...]:
    """Whole rows, a power of two of them, at most `CHUNK_BYTES`."""
    row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
    fitting = max(CHUNK_BYTES // row_bytes, 1)
    return (min(1 << (fitting.bit_length() - 1), count), *rows.shape[1:])


def write_parts(path: Path, parts: Iterable[Samples], count: int, start: int = 0) -> None:
    """Write samples number `start` to ``start + count - 1``, atomically, one part in memory.

    Raises
    ------
    DataError
        When the parts do not follow each other without a gap.
    """
    with new_hdf5(path) as file:
        position = start
        for part in parts:
            if part.start != position:
                raise DataError(f"samples {position} to {part.start} are missing")
            for name, rows, unit in _datasets(part):
                if name not in file:
                    file.create_dataset(
                        name, (count, *rows.shape[1:]), rows.dtype, fletcher32=True,
                        chunks=_chunk(rows, count),
                    )  # fmt: skip
                    if unit is not None:
                        file[name].attrs["unit"] = unit
                file[name][position - start : position - start + len(part)] = rows
            position += len(part)
            recipe = part.recipe
        if position != start + count:
            raise DataError(f"samples {position} to {start + count} are missing")
        file.attrs["schema"] = SCHEMA
        file.attrs["start"] = start
        for key, value in recipe.items():
            file.attrs[key] = _plain(value)
        file.attrs["provenance"] = json.dumps(provenance())


def write_samples(path: Path, samples: Samples) -> None:
    """Write samples or a part of them, atomically."""
    write_parts(path, [samples], len(samples), samples.start)


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


def _again(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is damaged ({error}); remove it and run sunpipe sample")


def read_samples(path: Path) -> Samples:
    """Read a samples file whole; a damaged one is a `DataError`."""
    names, units, values = read_values(path)
    with _open(path) as file:
        try:
            return Samples(
                w=file["w_plus" if "w_plus" in file else "w"][:], z=file["z"][:], names=names,
                units=units, values=values, recipe=_recipe(file.attrs),
                start=int(file.attrs["start"]), z2=file["z2"][:] if "z2" in file else None,
                crossover=file["crossover"][:] if "crossover" in file else None,
            )  # fmt: skip
        except (OSError, KeyError, ValueError) as error:
            raise _again(path, error) from None


def read_values(path: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Names, units and values (N, Q) of the measured quantities, without the latents."""
    with _open(path) as file:
        try:
            names = list(_recipe(file.attrs)["quantities"])
            columns = [file["quantities"][name] for name in names]
            units = [str(column.attrs["unit"]) for column in columns]
            return names, units, np.stack([column[:] for column in columns], axis=1)
        except (OSError, KeyError, ValueError) as error:
            raise _again(path, error) from None
