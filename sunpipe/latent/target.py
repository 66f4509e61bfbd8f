"""The observed patch that an inversion aims at: from FITS files, or from the shards."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.paths import Layout
from sunpipe.shards.schema import DatasetInfo, read_info
from sunpipe.shards.tiles import check_scale, kept_tiles

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator
    from sunpipe.shards.reader import ShardReader

Corner = tuple[int, int]


@dataclass(frozen=True)
class Target:
    """One tile of a patch, as the generator's dataset holds it.

    Attributes
    ----------
    fields : ndarray of float32, shape (C, H, H)
        In the generator's channels, gauss, 0 where invalid.
    mask : ndarray of bool, shape (H, H)
        True where valid.
    record : str
        JSOC record-set string.
    tile : (y, x)
        First native row and column in the patch.
    split : str or None
        Of the dataset; None for FITS files.
    tiles : int
        Tiles of this record that could have been taken.
    """

    fields: NDArray[np.float32]
    mask: NDArray[np.bool_]
    record: str
    tile: Corner
    split: str | None
    tiles: int

    @property
    def label(self) -> str:
        """A name for a folder: the record and the tile, in letters that every system takes."""
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", self.record.replace(":", ".")).strip("-")
        return f"{plain}-{self.tile[0]}-{self.tile[1]}"

    @property
    def digest(self) -> str:
        """SHA-256 of the fields and the mask."""
        found = hashlib.sha256(np.ascontiguousarray(self.fields).tobytes())
        found.update(np.ascontiguousarray(self.mask).tobytes())
        return found.hexdigest()

    def about(self) -> dict[str, Any]:
        """What the results say of it."""
        return {"record": self.record, "tile": list(self.tile), "split": self.split,
                "tiles": self.tiles, "digest": self.digest}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the user named: a record of the dataset, or three FITS files.

    Attributes
    ----------
    record : str or None
    fits : tuple of Path, or None
        Br, Bt, Bp.
    tile : (y, x) or None
        None takes the tile with the most unsigned flux.
    """

    record: str | None = None
    fits: tuple[Path, Path, Path] | None = None
    tile: Corner | None = None

    def __post_init__(self) -> None:
        if (self.record is None) == (self.fits is None):
            raise UsageError("give one of --record ID and --fits BR BT BP")


def _pick(corners: list[Corner], flux: NDArray[np.float64], wanted: Wanted, record: str) -> int:
    if wanted.tile is None:
        return int(np.argmax(flux))
    if wanted.tile in corners:
        return corners.index(wanted.tile)
    some = ", ".join(f"{y} {x}" for y, x in corners[:12]) + (" ..." if len(corners) > 12 else "")
    raise DataError(
        f"{record} has no tile at {wanted.tile[0]} {wanted.tile[1]}; --tile takes {some}"
    )


def _info(layout: Layout, dataset: str, generator: Generator) -> DatasetInfo:
    info = read_info(layout.shards(dataset))
    if info.channels != list(generator.channels) or info.resolution != generator.resolution:
        raise DataError(
            f"the dataset {dataset} holds {', '.join(info.channels)} at {info.resolution} pixels,"
            f" the generator of {generator.run} makes {', '.join(generator.channels)} at"
            f" {generator.resolution}; give the configuration it was trained with"
        )
    return info


def from_fits(layout: Layout, dataset: str, generator: Generator, wanted: Wanted) -> Target:
    """Cut three FITS files exactly as the dataset of the generator was cut.

    Raises
    ------
    DataError
        Another scale, no tile that the dataset would keep, or no such tile.
    FitsError
        A file cannot be used: wrong unit, no world coordinates, damaged ...
    """
    from sunpipe.fits import read_vector

    assert wanted.fits is not None
    info = _info(layout, dataset, generator)
    found = read_vector(*wanted.fits)
    check_scale(found.pixel_cm * info.reduce, generator.pixel_cm, found.record,
                f"the generator of {generator.run}")  # fmt: skip
    tiles = kept_tiles(found, asdict(info))
    corners = [(y, x) for y, x in tiles.corners]
    place = _pick(corners, tiles.flux_mx, wanted, found.record)
    return Target(tiles.images[place], tiles.masks[place], found.record, corners[place], None,
                  len(corners))  # fmt: skip


def target_row(reader: ShardReader, row: int, tiles: int = 1) -> Target:
    """One row of a dataset as a target."""
    columns = reader.records.select(["record", "tile_y", "tile_x", "split"]).slice(row, 1)
    about = columns.to_pylist()[0]
    return Target(
        reader.images([row])[0], reader.masks([row])[0], about["record"],
        (about["tile_y"], about["tile_x"]), about["split"], tiles,
    )  # fmt: skip


def from_record(layout: Layout, dataset: str, generator: Generator, wanted: Wanted) -> Target:
    """Read a record's tile from the shards.

    Raises
    ------
    DataError
        The record or the tile is not in the dataset.
    """
    import difflib

    import pyarrow.compute as pc

    from sunpipe.shards.reader import ShardReader

    assert wanted.record is not None
    info = _info(layout, dataset, generator)
    reader = ShardReader(layout.shards(dataset))
    names = reader.records["record"]
    rows = np.flatnonzero(pc.equal(names, wanted.record).to_numpy())
    if not len(rows):
        known = sorted(set(names.to_pylist()))
        near = difflib.get_close_matches(wanted.record, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"for example {known[0]}"
        raise DataError(f"no record {wanted.record!r} in the dataset {info.name}; {hint}")
    table = reader.records.take(rows)
    corners = list(zip(table["tile_y"].to_pylist(), table["tile_x"].to_pylist(), strict=True))
    flux = np.array(table["flux_mx"].to_pylist(), np.float64)
    place = _pick(corners, flux, wanted, wanted.record)
    check_scale(float(table["pixel_cm"][place].as_py()), generator.pixel_cm, wanted.record,
                f"the generator of {generator.run}")  # fmt: skip
    return target_row(reader, int(rows[place]), len(rows))


def find_target(layout: Layout, dataset: str, generator: Generator, wanted: Wanted) -> Target:
    """The patch that the user named."""
    choose = from_record if wanted.record is not None else from_fits
    return choose(layout, dataset, generator, wanted)
