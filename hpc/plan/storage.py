"""What an experiment takes on the disk, artefact by artefact.

Not counted, because small or asked for by hand: evaluations and reports, latents of
real images, logs.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.plan.subject import Subject, most_images, to_come
from sunpipe.errors import DataError
from sunpipe.paths import Layout
from sunpipe.run import find_run, ssl_name
from sunpipe.settings import Config

# Seen in runs: a grid of images takes about a byte per pixel and channel, a tick a line of
# statistics and a dozen TensorBoard points.
GRID_IMAGES, GRID_SIDE, PIXEL_BYTES = 24, 512, 1.0
TICK_BYTES = 2048
METADATA_BYTES = 64  # of a row: record name, place, split, size
QUANTITIES = 24  # at most so many numbers of eight bytes are measured of a sample
FIELD_BYTES = 4  # of a pixel of a generated field: searches and walks keep them in float32
WALK_SIDE, WALK_BASES = 128, 3  # pictures of a walk: `sunpipe.latent.traverse`


@dataclass(frozen=True)
class Stored:
    """Bytes of one kind of artefact; `bytes` is None where it cannot be known yet.

    `there` is what the disk holds of it already; with `at_most`, `bytes` is an upper bound.
    """

    what: str
    bytes: int | None
    how: str
    there: int = 0
    at_most: bool = False

    @property
    def more(self) -> int:
        """Bytes still to be written, as far as they are known."""
        return max((self.bytes or 0) - self.there, 0)

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return vars(self)


def experiment(cfg: Config, images: Subject, run: Path | None) -> list[Stored]:
    """Rows of this experiment in the current data root.

    Parameters
    ----------
    run : Path or None
        The run that goes on; None where one is yet to begin.

    Raises
    ------
    DataError
        A manifest that cannot be read.
    """
    from sunpipe.train.plan import checkpoint_bytes, encoder_bytes

    layout = Layout.current()
    if images.images is None:
        images = dataclasses.replace(images, at_most=most_images(cfg.shard, layout.archive))
    shape = (images.resolution, images.channels)
    rows = storage(cfg, images, checkpoint_bytes(cfg, *shape), encoder_bytes(cfg, *shape))
    latents = layout.latents(cfg.name)
    folders = {"samples": latents / "samples.h5", "directions": latents / "traverse.h5",
               "embeddings": layout.embeddings(cfg.name), "index": layout.index(cfg.name),
               "search": layout.searches(cfg.name)}  # fmt: skip
    if run is not None:
        folders |= {"checkpoints": run / "checkpoints", "image grids": run / "images",
                    "statistics": run / "tensorboard"}  # fmt: skip
    if (encoder := find_run(layout, ssl_name(cfg.name))) is not None:
        folders["encoder"] = encoder
    there = {what: folder.stat().st_size if folder.is_file() else folder_bytes(folder)
             for what, folder in folders.items()}  # fmt: skip
    return [
        archive(layout.archive, made=images.images is not None),
        *(dataclasses.replace(one, there=there.get(one.what, one.there)) for one in rows),
    ]


def archive(folder: Path, made: bool = False) -> Stored:
    """FITS files by their manifest; walking through millions of them would take too long.

    Parameters
    ----------
    made : bool
        The dataset is there: no more is fetched for it. Without it the size is not known
        while files are still to come.
    """
    path = folder / "manifest.parquet"
    if not path.is_file():
        return Stored("archive", None, "FITS files; known after sunpipe fetch")
    held = _tally(folder, path, made)
    whole = sum(count for (state, _), count in held.items() if state == "fetched")
    if not made and any(to_come(*kind) for kind in held):
        return Stored("archive", None, f"FITS files; {_mb(whole)} are on the disk, others are still"
                      " to come", whole)  # fmt: skip
    return Stored("archive", whole, "FITS files that are on the disk; more if more is fetched",
                  whole)  # fmt: skip


def _tally(folder: Path, path: Path, made: bool) -> dict[tuple[str, bool], int]:
    """Bytes by state, and whether it is final; once the dataset is `made`, of the table alone."""
    from preprocess.acquire.journal import FOLDER
    from preprocess.manifest import read_manifest

    # of a fetch at work or killed: newer than the table
    if not made and any((folder / FOLDER).glob("*.jsonl")):
        held: Counter[tuple[str, bool]] = Counter()
        for entry in read_manifest(folder).values():
            held[entry.state, entry.final] += entry.bytes
        return held
    import pyarrow.parquet as pq

    try:
        # the first version of the manifest had no `final`
        keys = ["state", *({"final"} & set(pq.read_schema(path).names))]
        table = pq.read_table(path, columns=["bytes", *keys])
        rows = table.group_by(keys).aggregate([("bytes", "sum")]).to_pylist()
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return {(row["state"], row.get("final", False)): row["bytes_sum"] or 0 for row in rows}


def storage(
    cfg: Config, images: Subject, checkpoint_bytes: int, encoder: int | None
) -> list[Stored]:
    """Bytes of each artefact of an experiment once it is complete.

    Parameters
    ----------
    checkpoint_bytes : int
        Of one checkpoint of G and D.
    encoder : int or None
        Of one checkpoint of ``sunpipe ssl``, None where that is not known.
    """
    t = cfg.train
    kept = min(t.keep_checkpoints, max(round(t.kimg / t.checkpoint_kimg), 1)) + 1
    encoders = min(cfg.ssl.keep_checkpoints,
                   max(round(cfg.ssl.kimg / cfg.ssl.checkpoint_kimg), 1)) + 1  # fmt: skip
    grids = t.kimg / t.image_kimg + 2
    side = min(images.resolution, GRID_SIDE)
    grid = GRID_IMAGES * side**2 * images.channels * PIXEL_BYTES
    sample = 4 * (t.model.z_dim + t.model.w_dim) + 8 * QUANTITIES
    dim = cfg.ssl.dim
    rows = images.at_most if images.images is None else images.images
    vectors = None if rows is None else rows * (4 * dim + METADATA_BYTES)
    bound = images.images is None and rows is not None
    each = "known after sunpipe shard"
    if rows is not None:
        each = "of all images" if images.images is not None else f"of at most {rows} images"
    queries = cfg.search.queries * FIELD_BYTES * images.channels * images.resolution**2
    return [
        _shards(images),
        Stored("checkpoints", kept * checkpoint_bytes,
               f"{kept} of {_mb(checkpoint_bytes)}, one of them being written"),
        Stored("image grids", round(grids * grid), f"{grids:.0f} grids"),
        Stored("statistics", round(t.kimg / t.tick_kimg * TICK_BYTES), "stats.jsonl, TensorBoard"),
        Stored("samples", cfg.sample.count * sample, f"{cfg.sample.count} of z, w, quantities"),
        Stored("directions", _walks(cfg, images), "pictures and quantities of the walks"),
        Stored("encoder", None if encoder is None else encoders * encoder,
               f"known after sunpipe ssl with {cfg.ssl.backbone}" if encoder is None else
               f"{encoders} of {_mb(encoder)}, one of them being written"),
        Stored("embeddings", vectors, each, at_most=bound),
        Stored("index", None if vectors is None else 2 * vectors,
               each if vectors is None else f"vectors and a coded copy, {each}", at_most=bound),
        Stored("search", queries, f"fields of {cfg.search.queries} queries, before compression"),
    ]  # fmt: skip


def _shards(images: Subject) -> Stored:
    if images.stored_bytes is not None:
        return Stored("shards", images.stored_bytes, "on the disk", images.stored_bytes)
    how = f"{_mb(images.raw_bytes)} an image before compression"
    if images.at_most is None:
        return Stored("shards", None, f"{how}; how many there will be is known after sunpipe shard")
    return Stored("shards", images.at_most * images.raw_bytes,
                  f"at most {images.at_most} of {how}", at_most=True)  # fmt: skip


def _walks(cfg: Config, images: Subject) -> int:
    """``traverse.h5``: two walks a quantity, one a component, and the control."""
    wanted = cfg.directions
    walks = 2 * len(wanted.quantities or range(QUANTITIES)) + wanted.components + 1
    picture = FIELD_BYTES * images.channels * min(images.resolution, WALK_SIDE) ** 2
    step = WALK_BASES * picture + 8 * QUANTITIES * wanted.traverse_count
    return walks * len(wanted.steps) * step


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e8 else f"{count / 1e6:.3g} MB"


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder; 0 without one, or of what goes meanwhile."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a run at work gives old checkpoints away
                total += (Path(inside) / name).stat().st_size
    return total


def free_bytes(root: Path) -> int:
    """Free space of the file system that holds, or will hold, the data root; quotas are unseen."""
    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
