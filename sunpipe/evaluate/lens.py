"""How images are looked at: one fixed transform for all runs on a dataset, then features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.evaluate.block import FeatureBlock
from sunpipe.evaluate.distributions import flux, histograms
from sunpipe.evaluate.random_features import COARSEST, RandomFeatures
from sunpipe.evaluate.spectra import band_power
from sunpipe.normalize_settings import NormalizeSettings
from sunpipe.shards.normalize import encode

if TYPE_CHECKING:
    from sunpipe.shards.reader import ShardReader

Tensor = torch.Tensor
Vectors = Callable[[Tensor], NDArray[np.float32]]
RADIAL = ("Br", "magnetogram")  # the channel whose flux is measured, the first that is there
GAUSS_SCALE, GAUSS_LIMIT = 100.0, 3000.0
PIXELS_AT_ONCE = 2**23  # of one channel: about 2 GB of working memory
LARGEST = 1e150  # of a feature; the square of a larger one is not finite
LOOKED_AT = 64  # images that give the scale of intensities


def spread_rows(reader: ShardReader, count: int) -> NDArray[np.int64]:
    """At most `count` of the reader's dataset rows, evenly spaced: chosen by no one."""
    if len(reader) <= count:
        return reader.rows
    return reader.rows[np.linspace(0, len(reader) - 1, count).round().astype(np.int64)]


def common_view(reader: ShardReader) -> NormalizeSettings:
    """The transform under which images of a dataset are compared, whatever a run was trained with.

    Distances of runs with different normalisations can be compared only so.
    Fields: asinh, bent at 100 G, 3000 G to 1, 0 to 0. Intensities: asinh, bent
    at the median of the channel, its 99.9th percentile to 1, 0 to -1, both of up
    to 64 evenly spaced images.

    Raises
    ------
    DataError
        An intensity that is nowhere above 0.
    """
    units = reader.info.units
    count = len(units)
    scale, limit, zero = [GAUSS_SCALE] * count, [GAUSS_LIMIT] * count, [0.0] * count
    if all(unit == "Gauss" for unit in units):
        return NormalizeSettings("asinh", GAUSS_SCALE, GAUSS_LIMIT, 0.0)
    images = reader.images(spread_rows(reader, LOOKED_AT))
    for place, unit in enumerate(units):
        if unit == "Gauss":
            continue
        values = images[:, place]
        values = values[values > 0]
        if not values.size:
            raise DataError(f"channel {reader.info.channels[place]} is nowhere above 0 {unit}")
        low, high = (float(each) for each in np.percentile(values, (50, 99.9)))
        scale[place], limit[place], zero[place] = low, max(high, low), -1.0
    return NormalizeSettings("asinh", tuple(scale), tuple(limit), tuple(zero))


@dataclass(frozen=True)
class Lens:
    """Turns physical fields into rows of numbers, on one device.

    Attributes
    ----------
    channels, units : list of str
    resolution : int
        H = W of the images.
    pixel_cm : float
        Side of a pixel, cm: the median of the dataset, for real and generated.
    view : NormalizeSettings
        The common transform, see `common_view`.
    vectors : mapping
        Further features by name: callables from physical fields (B, C, H, W) to
        (B, d), such as those of a trained encoder.
    """

    channels: list[str]
    units: list[str]
    resolution: int
    pixel_cm: float
    view: NormalizeSettings
    device: torch.device
    network: RandomFeatures
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    @classmethod
    def of(
        cls, reader: ShardReader, device: str | torch.device = "cpu",
        vectors: Mapping[str, Vectors] | None = None,
    ) -> Lens:  # fmt: skip
        """The lens for a dataset; a `DataError` when its images are too small."""
        info, device = reader.info, torch.device(device)
        if info.resolution < COARSEST:
            raise DataError(
                f"dataset {info.name} has {info.resolution} x {info.resolution} pixels; distances"
                f" need {COARSEST} x {COARSEST}"
            )
        network = RandomFeatures(len(info.channels), info.resolution).to(device)
        pixel = float(np.median(reader.pixel_cm[reader.rows])) if len(reader) else float("nan")
        return cls(
            list(info.channels), list(info.units), info.resolution, pixel, common_view(reader),
            device, network, dict(vectors or {}),
        )  # fmt: skip

    @property
    def radial(self) -> int | None:
        """The channel whose flux is measured."""
        found = [self.channels.index(name) for name in RADIAL if name in self.channels]
        return found[0] if found else None

    @property
    def intensities(self) -> list[int]:
        """Channels that are no magnetic field."""
        return [place for place, unit in enumerate(self.units) if unit != "Gauss"]

    def _finite(self, fields: Tensor) -> Tensor:
        """Which of the images (B, C, H, H) hold neither NaN nor infinity, (B,)."""
        wanted = (len(self.channels), self.resolution, self.resolution)
        if fields.ndim != 4 or tuple(fields.shape[1:]) != wanted:
            raise ValueError(f"fields must be (B, {wanted}), not {tuple(fields.shape)}")
        return fields.isfinite().flatten(1).all(dim=1)

    def nothing(self) -> FeatureBlock:
        """The block of no images, which joins with those of some."""
        side = self.resolution
        return self._features(
            torch.zeros(1, len(self.channels), side, side, device=self.device)
        ).take(slice(0))

    @torch.no_grad()
    def features(self, fields: Tensor | NDArray[Any]) -> FeatureBlock:
        """What is kept of images.

        Parameters
        ----------
        fields : Tensor or array, (B, C, H, H)
            Physical units.

        Returns
        -------
        FeatureBlock
            ``random`` (B, d); ``power`` (B, C x bands), square of the unit;
            ``histogram`` (B, C x bins), shares; ``moments`` (B, 2 C), mean and
            mean square; ``flux`` (B, 2), where a channel has one; and one array
            for each of `vectors`.

        Raises
        ------
        ValueError
            Fields of another shape.
        DataError
            A value that is not finite.
        """
        x = torch.as_tensor(fields)
        bad = int((~self._finite(x)).sum())
        if bad:
            raise DataError(
                f"{bad} of {len(x)} images hold NaN or infinity; distances need finite fields"
            )
        return self._in_parts(x)

    @torch.no_grad()
    def finite_features(self, fields: Tensor | NDArray[Any]) -> tuple[FeatureBlock, int]:
        """`features` of the images that have finite ones, and how many were left out.

        A young generator's large output may leave the range of float32 when it
        is turned into gauss or DN/s.
        """
        x = torch.as_tensor(fields)
        block = self._in_parts(x[self._finite(x)])
        good = np.ones(len(block), bool)
        for array in block.arrays.values():
            wide = np.asarray(array, np.float64)
            good &= (np.abs(wide) < LARGEST).all(axis=1)  # False for NaN
        return block.take(np.flatnonzero(good)), len(x) - int(good.sum())

    def _in_parts(self, x: Tensor) -> FeatureBlock:
        if not len(x):
            return self.nothing()
        step = max(1, PIXELS_AT_ONCE // self.resolution**2)
        return FeatureBlock.concat(
            self._features(x[start : start + step].to(self.device, torch.float32))
            for start in range(0, len(x), step)
        )

    def _features(self, x: Tensor) -> FeatureBlock:
        image = encode(x, self.view)
        pixels = x.flatten(2).double()
        found = {
            "random": self.network(image),
            "power": band_power(x).flatten(1),
            "histogram": histograms(image).flatten(1),
            "moments": torch.cat([pixels.mean(dim=2), pixels.square().mean(dim=2)], dim=1),
        }
        if self.radial is not None:
            found["flux"] = flux(x[:, self.radial], self.pixel_cm)
        arrays: dict[str, NDArray[Any]] = {name: value.cpu().numpy()
                                           for name, value in found.items()}  # fmt: skip
        arrays |= {name: make(x) for name, make in self.vectors.items()}
        return FeatureBlock(arrays)
