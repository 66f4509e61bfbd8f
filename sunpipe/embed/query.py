"""Questions that need the encoder: a SHARP in FITS files, a generated patch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.embed.encoder import FieldEncoder
from sunpipe.errors import DataError
from sunpipe.fits import COMPONENTS, VectorRecord, read_vector
from sunpipe.index.search import Query
from sunpipe.index.store import IndexInfo
from sunpipe.index.thumbnails import blocks, shown_channel
from sunpipe.latent.generator import Generator, Noise
from sunpipe.paths import Layout
from sunpipe.run import trained_run
from sunpipe.shards.tiles import check_channels, check_scale, kept_tiles

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
    places = " or ".join(dict.fromkeys(str(layout.runs) for layout in layouts))
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


def check_generator(info: IndexInfo, encoder: FieldEncoder, generator: Generator) -> None:
    """Refuse a generator whose patches are not such as the index holds.

    Raises
    ------
    DataError
        Other channels, another size, or another scale.
    """
    what = f"generator {generator.run}"
    encoder.check(generator.channels, generator.resolution, what, generator.units,
                  generator.pixel_cm)  # fmt: skip
    check_scale(generator.pixel_cm, info.dataset["pixel_cm"], what, "the index")


def cut_query(found: VectorRecord, info: IndexInfo) -> tuple[NDArray[np.float32], list[list[int]]]:
    """Tiles of a patch as the dataset of the index holds them, to the bit, and their corners.

    Raises
    ------
    DataError
        Another scale, no tile that passes the dataset's rules, or other channels.
    """
    about = info.dataset
    check_channels(about)
    scale = found.pixel_cm * about["reduce"]
    check_scale(scale, about["pixel_cm"], found.record, "the index")
    tiles = kept_tiles(found, about)
    return tiles.images, tiles.corners


def _whole(found: VectorRecord, info: IndexInfo) -> NDArray[np.float32]:
    """The first shown component of a patch at the scale of the index, NaN where invalid."""
    channels = info.dataset["channels"]
    name = "Br" if "Br" in channels else channels[0]
    field = np.asarray(found.fields[COMPONENTS.index(name)], np.float32)
    return blocks(field, -(-max(field.shape) // info.dataset["reduce"]))


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
    return Query(np.concatenate(vectors), about, found.record, encoder.card.digest,
                 _whole(found, info))  # fmt: skip


def open_generator(
    info: IndexInfo, run: str, encoder_run: str | None, index: Path | None
) -> tuple[Generator, FieldEncoder]:
    """A generator whose patches can be asked, and the encoder of the index.

    Raises
    ------
    DataError
        Other channels, another size, or another scale than the index.
    """
    encoder = index_encoder(info, encoder_run, index)
    generator = Generator.load(find_folder(run, index))
    check_generator(info, encoder, generator)
    return generator, encoder


def generated_query(
    generator: Generator, encoder: FieldEncoder, w: torch.Tensor, about: dict[str, Any],
    noise: Noise = "const",
) -> Query:  # fmt: skip
    """Ask with the patch of one latent, (1, w_dim) or (1, num_ws, w_dim)."""
    fields = generator.fields(w, noise)
    shown = np.asarray(fields[0, shown_channel(generator.channels)].cpu(), np.float32)
    said = {**about, "run": generator.run, "generator": generator.digest}
    return Query(encoder.vectors(fields), said, None, encoder.card.digest, shown)


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
    generator, encoder = open_generator(info, run, encoder_run, index)
    w = generator.map(generator.sample_z(1, seed), psi)
    return generated_query(generator, encoder, w, {"kind": "seed", "seed": seed, "psi": psi})
