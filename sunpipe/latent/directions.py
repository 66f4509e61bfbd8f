"""The published directions of one generator (contract C7).

``latents/<name>/``::

    directions.safetensors   unit vectors float32 (D,) of the space: <QUANTITY> to walk it,
                             <QUANTITY>|conditional to walk it with the others held,
                             <QUANTITY>|normal of the plane, PC1, PC2 ... components
    leakage.parquet          one row per target, quantity, conditional: `LEAKAGE`
    traverse.h5              what was measured on the walks: `sunpipe.latent.walks`
    leakage.png              the same as a picture
    directions.json          everything else, and the digests of the three; written last
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.files import atomic_path, read_json, sha256, write_json
from sunpipe.hdf5 import new_hdf5
from sunpipe.latent.space import Space
from sunpipe.latent.walks import Walk, read_walk, write_walk

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator

SCHEMA = 2
SUFFIX = {"plain": "", "conditional": "|conditional", "normal": "|normal"}
LEAKAGE = ("target", "quantity", "conditional", "slope", "low", "high", "unit_slope", "unit")
HINT = "run sunpipe directions fit"


@dataclass(frozen=True)
class Directions:
    """Directions of one generator, with all that was measured about them.

    Attributes
    ----------
    folder : Path
    about : dict
        Content of ``directions.json``: ``generator``, ``run``, ``recipe``, ``space``,
        ``quantities`` (by name), ``components`` and ``left_out`` (name to reason).
    vectors : dict
        Name with its `SUFFIX` to a unit vector, float64 (D,).
    """

    folder: Path
    about: dict[str, Any]
    vectors: dict[str, NDArray[np.float64]]

    @property
    def quantities(self) -> dict[str, dict[str, Any]]:
        """What is known of each quantity that has a direction."""
        return self.about["quantities"]

    @property
    def space(self) -> Space:
        """Where the vectors live."""
        return Space.read(self.about["space"])

    def vector(self, name: str, conditional: bool = False) -> NDArray[np.float64]:
        """One unit vector; a `DataError` says why there is none."""
        if name not in self.quantities:
            why = self.about["left_out"].get(name)
            known = ", ".join(self.quantities)
            raise DataError(
                f"no direction for {name}: {why}" if why
                else f"no direction for {name}; fitted: {known}; add it to directions.quantities"
            )  # fmt: skip
        key = name + SUFFIX["conditional" if conditional else "plain"]
        if key not in self.vectors:
            raise DataError(
                f"no conditional direction for {name}: {self.quantities[name]['no_conditional']}"
            )
        return self.vectors[key]

    def sign(self, name: str, kind: str = "plain") -> int:
        """-1 where steps along the vector were measured to lower the quantity, else 1."""
        return -1 if (self.quantities[name]["response"].get(kind) or 0.0) < 0 else 1

    def require(self, generator: Generator) -> None:
        """Refuse directions that were fitted in another generator's w."""
        if self.about["generator"] != generator.digest:
            raise DataError(
                f"{self.folder} holds directions of generator {self.about['run']}"
                f" ({self.about['generator'][:12]}), not of {generator.run}"
                f" ({generator.digest[:12]}); run sunpipe sample and sunpipe directions fit again"
            )

    def leakage(self) -> list[dict[str, Any]]:
        """Rows of the leakage table, with keys `LEAKAGE`."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / "leakage.parquet").to_pylist()

    def walk(self, target: str, kind: str = "plain") -> Walk:
        """What was measured along one direction; `kind` is plain or conditional.

        The control is ``walk("random", "random")``.
        """
        import h5py

        with h5py.File(self.folder / "traverse.h5", "r") as file:
            return read_walk(file, target, kind)


def _leakage_table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    kinds = [pa.string(), pa.string(), pa.bool_(), *[pa.float64()] * 4, pa.string()]
    return pa.table(
        {key: pa.array([row[key] for row in rows], kind)
         for key, kind in zip(LEAKAGE, kinds, strict=True)}
    )  # fmt: skip


def write_directions(
    folder: Path,
    about: dict[str, Any],
    vectors: dict[str, NDArray[np.float64]],
    leakage: list[dict[str, Any]],
    walks: list[Walk],
) -> None:
    """Publish directions; ``directions.json`` comes last and names the other files' digests.

    The bytes of the other files depend on the arguments alone, so that two
    array tasks that both publish do no harm.
    """
    import pyarrow.parquet as pq
    from safetensors.numpy import save

    content = save(
        {key: np.ascontiguousarray(vector, np.float32) for key, vector in vectors.items()},
        # One key: the library writes several in an order that changes from run to run.
        metadata={"sunpipe": f"directions {SCHEMA} of generator {about['generator']}"},
    )
    with atomic_path(folder / "directions.safetensors") as temporary:
        temporary.write_bytes(content)  # not save_file, whose files only their owner can read
    with atomic_path(folder / "leakage.parquet") as temporary:
        pq.write_table(_leakage_table(leakage), temporary)
    if leakage:
        from sunpipe.latent.leakage_picture import picture

        picture(leakage, folder / "leakage.png")
    with new_hdf5(folder / "traverse.h5") as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["generator"] = about["generator"]
        for walk in walks:
            write_walk(file, walk)
    names = ("directions.safetensors", "leakage.parquet", "traverse.h5")
    files = {name: sha256(folder / name) for name in names}
    write_json(folder / "directions.json", {"schema": SCHEMA, **about, "files": files})


def read_about(folder: Path) -> dict[str, Any]:
    """``directions.json``, its schema checked."""
    path = folder / "directions.json"
    if not path.is_file():
        raise DataError(f"no directions in {folder}; {HINT} first")
    about = read_json(path)
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        found = about.get("schema") if isinstance(about, dict) else None
        raise DataError(f"{path} has schema {found}, this version reads {SCHEMA}; {HINT} again")
    return about


def read_directions(folder: Path) -> Directions:
    """Read directions; a file that is missing or not the published one is a `DataError`."""
    from safetensors.numpy import load_file

    about = read_about(folder)
    for name, known in about["files"].items():
        if not (folder / name).is_file():
            raise DataError(f"{folder / name} is missing; {HINT} again")
        if sha256(folder / name) != known:
            raise DataError(f"{folder / name} is not the file that was published; {HINT} again")
    stored = load_file(folder / "directions.safetensors")
    vectors = {key: value.astype(np.float64) for key, value in stored.items()}
    return Directions(folder, about, vectors)
