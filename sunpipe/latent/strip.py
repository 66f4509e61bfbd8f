"""Frames of a walk side by side: a row per channel, colour bars, a scale bar in Mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sunpipe.latent.walks import Walk

BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # lengths of a scale bar


def scale_bar(axes: Any, pixels: int, pixel_cm: float) -> None:
    """Draw a bar of a round length, at most 40 % of an image's side, in its lower left corner."""
    from matplotlib.patheffects import withStroke

    side = pixels * pixel_cm / 1e8
    length = max((each for each in BARS_MM if each <= 0.4 * side), default=BARS_MM[0])
    left, low = 0.06 * pixels - 0.5, 0.07 * pixels - 0.5
    right = left + length / side * pixels
    edge = [withStroke(linewidth=3.5, foreground="white")]
    axes.plot([left, right], [low, low], color="black", linewidth=1.8, path_effects=edge,
              solid_capstyle="butt")  # fmt: skip
    axes.text((left + right) / 2, low + 0.04 * pixels, f"{length} Mm", fontsize=7, ha="center",
              va="bottom", path_effects=[withStroke(linewidth=2, foreground="white")])  # fmt: skip


def draw_strip(
    found: Walk, path: Path, title: str, captions: Sequence[str], units: Sequence[str] = ()
) -> None:
    """Draw the frames of a walk's first base.

    Parameters
    ----------
    found : Walk
    path : Path
        Of the PNG.
    title : str
    captions : sequence of str
        Above each frame.
    units : sequence of str
        Of the channels; gauss without.
    """
    from sunpipe import plots
    from sunpipe.latent.shades import shades

    images = found.images[0]
    frames, channels = images.shape[:2]
    figure = plots.new_figure(max(1.5 * frames + 1.1, 4.0), 1.5 * channels + 0.7)
    grid = figure.subplots(channels, frames, squeeze=False)
    first = 0
    for shade in shades(images, units or ["G"] * channels):  # what shares a bar stands together
        rows = grid[first : first + len(shade.rows)]
        for line, row in zip(rows, shade.rows, strict=True):
            shown = [shade.show(*each) for each in zip(line, images[:, row], strict=True)]
            line[0].set_ylabel(found.channels[row])
        bar = figure.colorbar(shown[0], ax=rows, pad=0.02)
        bar.set_label(shade.label(found.channels))
        first += len(rows)
    for column, caption in enumerate(captions):
        grid[0][column].set_title(caption, fontsize=8)
    scale_bar(grid[-1][0], images.shape[-1], found.pixel_cm)
    figure.suptitle(title, fontsize=9, color=plots.INK)
    plots.save(figure, path, dpi=130)
