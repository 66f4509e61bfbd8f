"""Real and generated patches side by side, in the same colours, with a bar in physical units."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sunpipe import plots
from sunpipe.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INTENSITY_CMAP = "inferno"
GROUND, GAP = "#f1f2f4", 0.012  # panels stand apart on the white of the page
PATCH_INCH, BAR_INCH = 0.95, 1.1


def _norm(shown: NDArray[Any], unit: str) -> tuple[Any, str]:
    """Colour scale and map that fit the real patches: symmetric for a field, asinh for light."""
    from matplotlib.colors import AsinhNorm, Normalize

    if unit == "Gauss":
        limit = plots.symmetric_limit(shown)
        return Normalize(-limit, limit), plots.FIELD_CMAP
    low, bend, top = np.percentile(shown, (0.5, 50, 99.8))
    if not top > low:
        top = low + 1.0
    return AsinhNorm(max(float(bend), 1e-3 * float(top)), float(low), float(top)), INTENSITY_CMAP


def draw_sheet(
    groups: dict[str, NDArray[Any]], *, unit: str, label: str, columns: int = 6, title: str = ""
) -> Figure:
    """Grids of (N, H, W) patches, one for each group; the first gives the colours.

    Parameters
    ----------
    groups : dict of str to ndarray
        Heading to patches.
    unit : str
        ``Gauss`` or ``DN/s``.
    label : str
        Of the quantity, for the colour bar.
    columns : int
        Of each grid.
    """
    from matplotlib.cm import ScalarMappable

    rows = max(-(-len(patches) // columns) for patches in groups.values())
    norm, cmap = _norm(next(iter(groups.values())), unit)
    width = PATCH_INCH * columns
    figure = plots.new_figure(width * len(groups) + BAR_INCH, PATCH_INCH * rows + 0.6)
    ratios = [width] * len(groups) + [BAR_INCH]
    panels = np.asarray(figure.subfigures(1, len(groups) + 1, width_ratios=ratios, wspace=GAP))
    for panel, (heading, patches) in zip(panels, groups.items(), strict=False):
        grid = np.asarray(panel.subplots(rows, columns, squeeze=False))
        for place, axes in enumerate(grid.flat):
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_linewidth(0.4)
            if place < len(patches):
                axes.imshow(patches[place], origin="lower", cmap=cmap, norm=norm,
                            interpolation="nearest")  # fmt: skip
            else:
                axes.axis("off")
        panel.suptitle(heading, fontsize=9, color=plots.INK)
        panel.set_facecolor(GROUND)
    bar_axes = panels[-1].subplots()
    bar_axes.set_box_aspect(20)
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=bar_axes)
    bar.set_label(f"{label} ({'G' if unit == 'Gauss' else unit})")
    if title:
        figure.suptitle(title, fontsize=10, color=plots.INK)
    return figure


def contact_sheet(
    real: NDArray[Any], fake: NDArray[Any], path: Path, *, channel: str, unit: str,
    title: str = "", columns: int = 6,
) -> None:  # fmt: skip
    """Write a PNG with real patches on the left and generated ones on the right.

    Parameters
    ----------
    real, fake : ndarray, (N, H, W) and (M, H, W)
        One channel in `unit`.
    path : Path
    channel, unit : str
        For the colour bar.

    Raises
    ------
    DataError
        No patch on one side, or a value that is not finite.
    """
    for what, patches in (("real", real), ("generated", fake)):
        if not len(patches) or not np.isfinite(patches).all():
            raise DataError(f"a contact sheet needs finite {what} patches")
    groups = {"real": real, "generated": fake}
    figure = draw_sheet(groups, unit=unit, label=channel, columns=columns, title=title)
    plots.save(figure, path, dpi=100)
