"""Colours of generated patches: one scale for a vector's components, one for each wavelength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sunpipe import plots
from sunpipe.fitsorigin import GAUSS

INTENSITY_CMAP = "inferno"
DARK, BRIGHT = 0.5, 99.8  # percentiles at the ends of an intensity's colours
LEAST_BEND = 1e-3  # of the brightest: below it asinh has no logarithmic part to show


@dataclass(frozen=True)
class Shade:
    """A colour scale and the channels it is for.

    Attributes
    ----------
    rows : tuple of int
        Channels, in order.
    unit : str
    cmap : str
    norm : matplotlib.colors.Normalize
    """

    rows: tuple[int, ...]
    unit: str
    cmap: str
    norm: Any

    def label(self, channels: Sequence[str]) -> str:
        """Of the colour bar."""
        return "field (G)" if self.unit == "G" else f"{channels[self.rows[0]]} ({self.unit})"

    def show(self, axes: Any, image: NDArray[Any]) -> Any:
        """Draw one (H, W) image, row 0 at the bottom."""
        picture = plots.show_field(axes, image, 1.0)
        picture.set_cmap(self.cmap)
        picture.set_norm(self.norm)
        return picture


def _intensity(images: NDArray[Any]) -> Any:
    """Asinh between percentiles, bent at the median: loops and holes are both seen."""
    from matplotlib.colors import AsinhNorm

    values = images[np.isfinite(images)]
    if not values.size:
        return AsinhNorm(1.0, 0.0, 1.0)
    low, bend, top = np.percentile(values, (DARK, 50, BRIGHT))
    if not top > low:
        top = low + 1.0
    return AsinhNorm(max(float(bend), LEAST_BEND * float(top - low)), float(low), float(top))


def shades(images: NDArray[Any], units: Sequence[str]) -> list[Shade]:
    """Colour scales of all channels.

    A field in gauss takes both signs: its components share one symmetric, diverging scale.
    Every other channel is an intensity with a scale of its own: wavelengths differ in
    brightness by orders of magnitude.

    Parameters
    ----------
    images : ndarray, shape (..., C, H, W)
    units : sequence of str
        Of the channels.
    """
    from matplotlib.colors import Normalize

    found: list[Shade] = []
    field = tuple(row for row, unit in enumerate(units) if unit in GAUSS)
    if field:
        limit = plots.symmetric_limit(images[..., list(field), :, :])
        found.append(Shade(field, "G", plots.FIELD_CMAP, Normalize(-limit, limit)))
    found += [
        Shade((row,), unit, INTENSITY_CMAP, _intensity(images[..., row, :, :]))
        for row, unit in enumerate(units) if row not in field
    ]  # fmt: skip
    return sorted(found, key=lambda shade: shade.rows)
