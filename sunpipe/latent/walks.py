"""Walks in w: what was measured at every step from every base, and its HDF5 form.

One group per walk, in ``traverse.h5`` and in the parts of an unfinished fit::

    /<TARGET>/<kind>/values (B, K, Q) float64     attributes names, units, sigma
                    /steps (K,)  /rows (B,)
                    /images (H, K, C, h, w) float32 gauss   attributes channels, pixel_cm
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import DataError
from sunpipe.latent.direction import Floats


@dataclass(frozen=True)
class Walk:
    """One direction walked from B bases.

    Attributes
    ----------
    target : str
        The quantity whose direction it is, or ``random``.
    kind : str
        ``plain``, ``conditional`` or ``random``.
    steps : ndarray, shape (K,)
        Positions, in standard deviations of w along the direction.
    sigma : float
        Length of one step in w; for ``random`` the mean over the bases.
    rows : ndarray of int, shape (B,)
        Samples the walk starts from.
    names, units : list of str
        Measured quantities (Q).
    values : ndarray, shape (B, K, Q)
        NaN where undefined.
    images : ndarray of float32, shape (H, K, C, h, w)
        Fields of the first H bases in gauss, reduced to at most `PICTURE` pixels.
    channels : list of str
    pixel_cm : float
        Side of a pixel of `images`.
    """

    target: str
    kind: str
    steps: Floats
    sigma: float
    rows: NDArray[np.int64]
    names: list[str]
    units: list[str]
    values: Floats
    images: NDArray[np.float32]
    channels: list[str]
    pixel_cm: float

    def column(self, name: str) -> Floats:
        """One quantity at every base and step, shape (B, K)."""
        return self.values[:, :, self.names.index(name)]


def write_walk(file: Any, walk: Walk) -> None:
    """Add a walk to an open HDF5 file."""
    import hdf5plugin

    group = file.create_group(f"{walk.target}/{walk.kind}")
    group.attrs["sigma"] = walk.sigma
    group.attrs["names"] = walk.names
    group.attrs["units"] = walk.units
    group.create_dataset("values", data=walk.values, fletcher32=True)
    group.create_dataset("steps", data=walk.steps)
    group.create_dataset("rows", data=walk.rows)
    chunk = (1, 1, *walk.images.shape[2:])
    images = group.create_dataset(
        "images", data=walk.images, chunks=chunk if walk.images.size else None,
        **(hdf5plugin.Bitshuffle() if walk.images.size else {}),
    )  # fmt: skip
    images.attrs["channels"] = walk.channels
    images.attrs["pixel_cm"] = walk.pixel_cm


def read_walk(file: Any, target: str, kind: str) -> Walk:
    """Read a walk from an open HDF5 file."""
    import hdf5plugin  # noqa: F401  registers bitshuffle

    try:
        group = file[target][kind]
        images = group["images"]
        return Walk(
            target=target, kind=kind, steps=group["steps"][:], sigma=float(group.attrs["sigma"]),
            rows=group["rows"][:], names=[str(name) for name in group.attrs["names"]],
            units=[str(unit) for unit in group.attrs["units"]], values=group["values"][:],
            images=images[:], channels=[str(name) for name in images.attrs["channels"]],
            pixel_cm=float(images.attrs["pixel_cm"]),
        )  # fmt: skip
    except (OSError, KeyError) as error:
        raise DataError(f"{file.filename} has no usable walk {target}/{kind} ({error})") from None
