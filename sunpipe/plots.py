"""Pictures of magnetograms with a physical colour bar, made without a display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FIELD_CMAP = "RdBu_r"  # diverging, readable with colour-blindness; red is positive
INK = "#1b1f27"


def new_figure(width: float, height: float) -> Figure:
    """Make a figure that never opens a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_field(axes: Any, field: NDArray[Any], limit: float) -> Any:
    """Draw one (H, W) field in gauss, row 0 at the bottom (north up), no ticks."""
    picture = axes.imshow(
        field, origin="lower", cmap=FIELD_CMAP, vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_linewidth(0.4)
    return picture


def field_grid(
    fields: NDArray[Any], columns: int, *, limit: float, unit: str, label: str, title: str = ""
) -> Figure:
    """Grid of (N, H, W) fields with one colour bar.

    Parameters
    ----------
    limit : float
        Colour range is -limit to +limit, in `unit`.
    label : str
        Name of the quantity shown, for the colour bar.
    """
    rows = -(-len(fields) // columns)
    figure = new_figure(1.1 * columns + 0.9, 1.1 * rows + (0.35 if title else 0.1))
    grid = np.asarray(figure.subplots(rows, columns, squeeze=False))
    picture: Any = None
    for place, axes in enumerate(grid.flat):
        if place < len(fields):
            picture = show_field(axes, fields[place], limit)
        else:
            axes.axis("off")
    bar = figure.colorbar(picture, ax=grid, shrink=min(1.0, 3 / rows), pad=0.02)
    bar.set_label(f"{label} ({unit})")
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return figure


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a PNG atomically."""
    from sunpipe.files import atomic_path

    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def symmetric_limit(fields: NDArray[Any] | Sequence[Any], percentile: float = 99.5) -> float:
    """A round colour limit that keeps `percentile` of the magnitudes inside."""
    values = np.abs(np.asarray(fields))
    values = values[np.isfinite(values)]
    top = float(np.percentile(values, percentile)) if values.size else 1.0
    if top <= 0:
        return 1.0
    step = 10 ** np.floor(np.log10(top))
    return float(np.ceil(top / step) * step)
