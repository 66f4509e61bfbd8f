"""Questions that need the encoder: a SHARP in FITS files, a generated patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.embed.encoder import FieldEncoder
from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS, VectorRecord, read_vector
from sunpipe.fitsfile import FitsError
from sunpipe.index.search import Query
from sunpipe.index.store import IndexInfo
from sunpipe.latent.generator import Generator
from sunpipe.paths import Layout
from sunpipe.run import trained_run
from sunpipe.shards.cut import cut, cut_vector, missing_share, tile_flux
from sunpipe.shards.stored import Stored, restore

SAME_SCALE = 0.02  # relative difference of pixel sizes that still is the same pixel
BATCH = 64


def find_folder(run: str, index: Path | None = None) -> Path:
    """A run by its folder, its folder's name under a data root, or its experiment's name.

    Parameters
    ----------
    index : Path, optional
        Folder of an index; when it is ``<root>/index/<name>``, that root is looked
        in first, then the current one.

    Raises
    ------
    DataError
        None of them exists.
    """
    if (Path(run) / "config.json").is_file():
        return Path(run)
    layouts = [Layout.current()]
    if index is not None and index.absolute().parent.name == "index":
        layouts.insert(0, Layout(index.absolute().parent.parent))
    for layout in layouts:
        if (layout.runs / run / "config.json").is_file():
            return layout.runs / run
        if (found := trained_run(layout, run)) is not None:
            return found
    places = " or ".join(str(layout.runs) for layout in layouts)
    raise DataError(f"no run {run!r}: neither a run folder nor a name under {places}")


def index_encoder(
    info: IndexInfo, run: str | None = None, index: Path | None = None
) -> FieldEncoder:
    """The encoder an index was made with, from `run` or from the run the index names.

    Raises
    ------
    DataError
        The run is not there, or has no encoder of the index's digest.
    """
    card = info.encoder
    return FieldEncoder.load(find_folder(run or card["run"], index), card["orbit"], card["digest"])


def check_scale(info: IndexInfo, pixel_cm: float, what: str) -> None:
    """Refuse a query whose pixel is not the archive's: it would be another physical size."""
    archive = info.dataset["pixel_cm"]
    if not abs(pixel_cm / archive - 1) < SAME_SCALE:
        raise DataError(
            f"{what} has pixels of {pixel_cm / 1e5:.1f} km, the index was made of"
            f" {archive / 1e5:.1f} km; search an index of the same scale"
        )


def _kept(found: VectorRecord, offset: tuple[int, int], info: IndexInfo) -> bool:
    """Whether the dataset would have kept this tile (the flux rule of its settings)."""
    rules = info.dataset["settings"]
    tile = cut(found.fields, offset, info.dataset["tile"])
    flux = tile_flux(tile[0], found.pixel_cm, rules.get("flux_floor_g", 0.0))
    return flux >= rules.get("min_flux_mx", 0.0)


def cut_query(found: VectorRecord, info: IndexInfo) -> tuple[NDArray[np.float32], list[list[int]]]:
    """Tiles of a patch as the dataset of the index holds them, to the bit, and their corners.

    Raises
    ------
    DataError
        No tile passes the dataset's rules, or the dataset has other channels.
    """
    about = info.dataset
    if others := [name for name in about["channels"] if name not in COMPONENTS]:
        raise DataError(f"the index has channels {', '.join(others)}, which --fits cannot give")
    check_scale(info, found.pixel_cm * about["reduce"], found.record)
    images, masks, corners = cut_vector(
        found.fields, about["tile"], about["stride"], about["reduce"]
    )
    rules = about["settings"]
    allowed = rules.get("max_nan_share", 1.0)
    stored = Stored(rules.get("dtype", "float32"), about["scale"])
    channels = [COMPONENTS.index(name) for name in about["channels"]]
    tiles, chosen = [], []
    for image, mask, corner in zip(images, masks, corners.tolist(), strict=True):
        at = (corner[0], corner[1])
        missing = missing_share(mask, at, found.fields.shape[1:], about["reduce"])
        if not mask.any() or missing > allowed or not _kept(found, at, info):
            continue
        try:
            counts = stored.quantise(image)
        except FitsError:
            continue  # the dataset holds no such tile either
        tiles.append(restore(counts[channels], about["scale"]))
        chosen.append(corner)
    if not tiles:
        raise DataError(
            f"{found.record} has no tile that the dataset {about['name']} would keep: each is too"
            " weak (shard.min_flux_mx), too incomplete (shard.max_nan_share) or too strong"
            f" ({stored.dtype})"
        )
    return np.stack(tiles), chosen


def fits_query(
    info: IndexInfo, paths: tuple[Path, Path, Path], run: str | None = None,
    index: Path | None = None,
) -> Query:  # fmt: skip
    """Ask with a SHARP: cut and reduced exactly as the dataset of the index was.

    Parameters
    ----------
    info : IndexInfo
    paths : (br, bt, bp)
    run : str, optional
        Run of the encoder, when it is not where the index says.
    index : Path, optional
        Folder of the index: runs beside it are found.
    """
    found = read_vector(*paths)
    fields, corners = cut_query(found, info)
    encoder = index_encoder(info, run, index)
    vectors = [encoder.vectors(fields[at : at + BATCH]) for at in range(0, len(fields), BATCH)]
    about: dict[str, Any] = {"kind": "fits", "record": found.record, "tiles": len(corners)}
    return Query(np.concatenate(vectors), about, found.record, encoder.card.digest)


def seed_query(
    info: IndexInfo, seed: int, run: str, encoder_run: str | None = None, psi: float = 1.0,
    index: Path | None = None,
) -> Query:  # fmt: skip
    """Ask with the patch that a generator makes of a seed (its first latent).

    Parameters
    ----------
    run : str
        Run of the generator: folder or experiment name.
    psi : float
        Truncation of w.
    """
    encoder = index_encoder(info, encoder_run, index)
    generator = Generator.load(find_folder(run, index))
    encoder.check(generator.channels, generator.resolution, f"generator {generator.run}")
    check_scale(info, generator.pixel_cm, f"generator {generator.run}")
    fields = generator.fields(generator.map(generator.sample_z(1, seed), psi))
    about = {"kind": "seed", "seed": seed, "run": generator.run, "generator": generator.digest,
             "psi": psi}  # fmt: skip
    return Query(encoder.vectors(fields), about, None, encoder.card.digest)
