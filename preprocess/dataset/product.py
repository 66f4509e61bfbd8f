"""What every kind of dataset offers to the builder: its candidates, and the image of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preprocess.dataset.inputs import Input
from sunpipe.shard_settings import ShardSettings

Place = tuple[int, int]  # first native row and column of a tile
Row = dict[str, Any]
Image = NDArray[np.floating]
Mask = NDArray[np.bool_]


class Opened(Protocol):
    """An input that was read and judged."""

    def image(self, place: Place) -> tuple[Row, Image, Mask]:
        """Row of the dataset, image (C, R, R) with 0 where invalid, mask (R, R).

        Raises
        ------
        FitsError
            Why this tile is not used.
        """


class Product(Protocol):
    """One kind of dataset.

    Attributes
    ----------
    channels, units : list of str
    segments : tuple of str
        What is read of each record.
    made_with : str
        Identity of the calibration: its version and the tables it reads.
    resolution, tile, stride, reduce : int
        As in `DatasetInfo`.
    """

    channels: list[str]
    units: list[str]
    segments: tuple[str, ...]
    made_with: str
    resolution: int
    tile: int
    stride: int
    reduce: int

    def places(self, archive: Path, item: Input) -> list[Place]:
        """Tiles of an input, from its size alone.

        Raises
        ------
        FitsError
            When not even the size can be read.
        """

    def open(self, archive: Path, item: Input) -> Opened:
        """Read, judge and calibrate an input.

        Raises
        ------
        FitsError
            Why it cannot be used.
        """


def make_product(settings: ShardSettings) -> Product:
    """The product that `settings` name."""
    if settings.is_patch:
        from preprocess.dataset.patches import Patches

        return Patches(settings)
    from preprocess.dataset.disks import Disks

    return Disks(settings)


def simulated(header: Mapping[str, Any]) -> bool:
    """Whether a header says that its image is no observation."""
    return str(header.get("TELESCOP", "")).startswith(("SIMULATED", "SYNTHETIC"))
