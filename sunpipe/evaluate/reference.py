"""The real side of every distance, computed once, and the comparison with generated images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.errors import DataError, UsageError
from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.distributions import (
    BINS,
    edges,
    histogram_distance,
    quantiles,
    wasserstein,
)
from sunpipe.evaluate.frechet import Gaussian, frechet_distance, kernel_distance
from sunpipe.evaluate.lens import Lens, Vectors, spread_rows
from sunpipe.evaluate.spectra import octave_errors
from sunpipe.train_settings import MetricSettings

if TYPE_CHECKING:
    from sunpipe.shards.reader import ShardReader

Floats = NDArray[np.float64]
FEWEST = 64  # images: below it a covariance says nothing
OTHERS = ("power", "histogram", "moments", "flux")  # arrays of a block that are no features


def read_block(
    lens: Lens, reader: ShardReader, rows: NDArray[np.int64], batch: int
) -> FeatureBlock:
    """Features of dataset rows, `batch` at a time; of none, an empty block."""
    if not len(rows):
        return lens.nothing()
    return FeatureBlock.concat(
        lens.features(torch.from_numpy(reader.images(rows[start : start + batch])))
        for start in range(0, len(rows), batch)
    )


def check_metrics(reader: ShardReader, settings: MetricSettings) -> None:
    """Refuse distances that a training could not take, before anything is built.

    Ranks without an image of their own are fine.

    Raises
    ------
    UsageError
        ``train.metrics.kimg`` above 0, and under 64 training images.
    """
    if settings.kimg and len(reader) < FEWEST:
        raise UsageError(
            f"train.metrics.kimg={settings.kimg:g} asks for distances, which need {FEWEST} training"
            f" images; dataset {reader.info.name} has {len(reader)}. Set train.metrics.kimg=0"
        )


def _enough(count: int, what: str) -> None:
    if count < FEWEST:
        raise DataError(f"{count} {what} images are too few for a distance; it needs {FEWEST}")


@dataclass(frozen=True)
class Reference:
    """Statistics of real images.

    Attributes
    ----------
    lens : Lens
    block : FeatureBlock
        Of the real images.
    scale, centre : mapping of str to ndarray (d,)
        Standard deviation and mean of each feature, by which it is standardised.
    """

    lens: Lens
    block: FeatureBlock
    centre: Mapping[str, Floats]
    scale: Mapping[str, Floats]

    @classmethod
    def of(
        cls, reader: ShardReader, settings: MetricSettings | None = None, *,
        device: str | torch.device = "cpu", vectors: Mapping[str, Vectors] | None = None,
    ) -> Reference:  # fmt: skip
        """Read the real images once.

        Parameters
        ----------
        reader : ShardReader
            Of the split that was trained on.
        settings : MetricSettings, optional
            `count` evenly spaced rows are read (all when there are fewer),
            `batch` at a time.
        vectors : mapping
            Further features, see `Lens`; their metrics are ``fd_NAME``, ``kid_NAME``.

        Raises
        ------
        DataError
            Under 64 images, or images that are all the same.
        """
        settings = settings or MetricSettings()
        lens = Lens.of(reader, device, vectors)
        rows = spread_rows(reader, settings.count)
        _enough(len(rows), "real")
        return cls.from_block(lens, read_block(lens, reader, rows, settings.batch))

    @classmethod
    def from_block(cls, lens: Lens, block: FeatureBlock) -> Reference:
        """The reference made of images that were looked at before."""
        _enough(len(block), "real")
        names = [name for name in block.arrays if name not in OTHERS]
        wide = {name: np.asarray(block[name], np.float64) for name in names}
        scale = {name: array.std(axis=0, ddof=1) for name, array in wide.items()}
        for name, spread in scale.items():
            if not spread.max() > 0:
                raise DataError(f"the real images are all the same to the {name} features")
            # a feature that (nearly) never varies would outweigh all others
            scale[name] = np.maximum(spread, 1e-3 * np.median(spread[spread > 0]))
        centre = {name: array.mean(axis=0) for name, array in wide.items()}
        return cls(lens, block, centre, scale)

    def features(self, fields: torch.Tensor | NDArray[Any]) -> FeatureBlock:
        """`Lens.features` of physical fields (B, C, H, H)."""
        return self.lens.features(fields)

    def standard(self, block: FeatureBlock, name: str) -> Floats:
        """Features (N, d) in standard deviations of the real ones from their mean."""
        wide = np.asarray(block[name], np.float64)
        return (wide - self.centre[name]) / self.scale[name]


def _scaled(real: NDArray[Any], fake: NDArray[Any], what: str) -> float:
    """Wasserstein distance in standard deviations of the real values."""
    spread = float(np.std(np.asarray(real, np.float64), ddof=1))
    if spread == 0:
        raise DataError(f"all real images have the same {what}; no distance can be scaled by it")
    return wasserstein(real, fake) / spread


def _spectrum(reference: Reference, fake: FeatureBlock) -> dict[str, float]:
    lens = reference.lens
    real_power, fake_power = (
        block["power"].mean(axis=0).reshape(len(lens.channels), -1)
        for block in (reference.block, fake)
    )
    size, sign = octave_errors(real_power, fake_power, lens.resolution)
    found = {"spectrum_db": float(np.sqrt(np.square(size).mean()))}
    return found | {f"spectrum_db_k{2**place}": float(one) for place, one in enumerate(sign)}


def _pixels(reference: Reference, fake: FeatureBlock) -> dict[str, float]:
    lens, real = reference.lens, reference.block
    count = len(lens.channels)
    edge = edges(lens.view, count)
    shares = [block["histogram"].reshape(-1, count, BINS) for block in (real, fake)]
    means = [each.mean(axis=0, dtype=np.float64) for each in shares]
    moments = real["moments"].mean(axis=0)
    spread = np.sqrt(moments[count:] - moments[:count] ** 2)
    if not spread.min() > 0:
        raise DataError(f"all real pixels of {lens.channels[int(spread.argmin())]} are the same")
    each = [histogram_distance(means[0][c], means[1][c], edge[c]) / spread[c] for c in range(count)]
    found = {"w1_pixels": float(np.mean(each))}
    for place in lens.intensities:
        name = lens.channels[place]
        mean, made = real["moments"][:, place], fake["moments"][:, place]
        found[f"w1_mean_{name}"] = _scaled(mean, made, f"mean of {name}")
        for label, level in (("median", 0.5), ("p99", 0.99)):
            one, two = (quantiles(side[:, place], edge[place], level) for side in shares)
            found[f"w1_{label}_{name}"] = _scaled(one, two, f"{label} of {name}")
    return found


def compare(reference: Reference, fake: FeatureBlock) -> dict[str, float]:
    """Distances of generated from real images; see `METRICS` for units.

    The order of images does not matter beyond rounding, so ranks may be joined
    in any order.

    Parameters
    ----------
    reference : Reference
    fake : FeatureBlock
        From `Reference.features`, of all ranks.

    Raises
    ------
    DataError
        Under 64 generated images.
    ValueError
        A block of another lens.
    """
    _enough(len(fake), "generated")
    kinds = [{name: array.shape[1] for name, array in block.arrays.items()}
             for block in (reference.block, fake)]  # fmt: skip
    if kinds[0] != kinds[1]:
        raise ValueError(f"blocks of different features: {kinds[0]} and {kinds[1]}")
    found: dict[str, float] = {}
    for name in reference.centre:
        real, made = (reference.standard(block, name) for block in (reference.block, fake))
        found[f"fd_{name}"] = frechet_distance(Gaussian.of(real), Gaussian.of(made))
        found[f"kid_{name}"] = kernel_distance(real, made)
    found |= _spectrum(reference, fake) | _pixels(reference, fake)
    if "flux" in fake:
        for place, (key, what) in enumerate((("w1_usflux", "flux"), ("w1_imbalance", "imbalance"))):
            one, two = reference.block["flux"][:, place], fake["flux"][:, place]
            found[key] = _scaled(one, two, what)
    return found
