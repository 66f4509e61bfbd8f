"""Generated patches ask the archive; and what the audit of copies needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe import checkpoint
from sunpipe.errors import DataError
from sunpipe.files import read_json
from sunpipe.paths import Layout
from sunpipe.run import trained_run
from sunpipe.settings import Config

if TYPE_CHECKING:
    from sunpipe.embed.encoder import FieldEncoder
    from sunpipe.evaluate.retrieval_bench import Bench
    from sunpipe.latent.generator import Generator

Floats32 = NDArray[np.float32]
SAME_SCALE = 0.02  # relative difference of pixel sizes that still is the same pixel


@dataclass(frozen=True)
class Made:
    """N generated patches.

    Attributes
    ----------
    rows : float32 ndarray (N, pixels)
        As pixels are compared.
    values : float64 ndarray (N, Q)
        Measured quantities, NaN where undefined.
    vectors : float32 ndarray (N, dim)
        As the encoder gives them.
    """

    rows: Floats32
    values: NDArray[np.float64]
    vectors: Floats32

    def __len__(self) -> int:
        return len(self.vectors)


def trained_generator(layout: Layout, config: Config) -> Path | None:
    """The experiment's run of ``sunpipe train`` with a checkpoint, or None."""
    folder = trained_run(layout, config.name)
    if folder is None or not checkpoint.complete(folder / "checkpoints"):
        return None
    return folder


def check_generator(
    generator: Generator, encoder: FieldEncoder, dataset: dict[str, Any], run: Path
) -> list[str]:
    """Refuse a generator of other images; give the symmetries of its training.

    Raises
    ------
    DataError
        Other channels, size, dataset or pixel than those of the embedding.
    """
    encoder.check(generator.channels, generator.resolution, f"generator {generator.run}",
                  generator.units, generator.pixel_cm)  # fmt: skip
    config = read_json(run / "config.json")
    if config["data"]["dataset_id"] != dataset["id"]:
        raise DataError(
            f"{generator.run} was trained on another dataset than {dataset['name']} as it is now:"
            " what it may have copied is not here; train on it, or embed its dataset"
        )
    if not abs(generator.pixel_cm / dataset["pixel_cm"] - 1) < SAME_SCALE:
        raise DataError(
            f"{generator.run} makes pixels of {generator.pixel_cm / 1e5:.1f} km, the embedding has"
            f" {dataset['pixel_cm'] / 1e5:.1f} km"
        )
    return list(config["train"]["symmetries"])


def fields_of(generator: Generator, config: Config, first: int, count: int) -> Floats32:
    """Fields (count, C, H, H) of the latents number `first` and on of ``seed``.

    Raises
    ------
    DataError
        An image that is not finite.
    """
    z = generator.sample_z(count, config.seed, first)
    w = generator.map(z, config.sample.psi)
    seen = generator.fields(w, config.sample.noise).float().cpu().numpy()
    if not np.isfinite(seen).all():
        raise DataError(
            f"{generator.run} makes images that are not finite: it has failed; train on"
        )
    return seen


def make(generator: Generator, bench: Bench, config: Config) -> Made:
    """Generate, measure and embed the first ``retrieval.queries`` latents of ``seed``.

    With ``sample.psi`` and ``sample.noise``, so that they are the patches of
    ``sunpipe sample`` and ``sunpipe search``. The images themselves are not kept.
    """
    import torch

    from sunpipe.evaluate.retrieval_sweep import pixel_rows
    from sunpipe.physics.images import measure_images

    values, vectors = [], []

    def block(rows: slice) -> Floats32:
        bench.poll()
        seen = fields_of(generator, config, rows.start, rows.stop - rows.start)
        with torch.inference_mode():
            found = measure_images(
                torch.from_numpy(seen), generator.channels, generator.pixel_cm, bench.names
            )
        values.append(found.double().numpy())
        vectors.append(bench.encoder.vectors(seen))
        return seen

    rows = pixel_rows(block, config.retrieval.queries, bench.view)
    return Made(rows, np.concatenate(values), np.concatenate(vectors))
