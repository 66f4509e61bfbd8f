"""The leakage matrix as a picture: before and after conditioning, side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 1.0  # colours saturate here: as much of the other as of the target
KINDS = ((False, "before conditioning"), (True, "after conditioning"))


def picture(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Draw the leakage table: targets down, what changes with them across.

    A cell is the change of the quantity per change of the target, both in natural standard
    deviations. It is written out where its 95 % interval excludes 0; a dot marks where
    nothing can be said. The bytes depend on the rows alone.

    Parameters
    ----------
    rows : iterable of dict
        From `sunpipe.latent.leakage.leaks`; further quantities than the targets stand to the
        right of them.
    path : Path
        Of the PNG.
    """
    from sunpipe import plots

    table = list(rows)
    targets = list(dict.fromkeys(row["target"] for row in table))
    measured = dict.fromkeys(row["quantity"] for row in table)
    across = targets + [name for name in measured if name not in targets]
    cells = {(row["target"], row["quantity"], row["conditional"]): row for row in table}
    width, height = 0.42 * len(across) + 0.4, 0.34 * len(targets) + 1.5
    figure = plots.new_figure(2 * width + 2.2, max(height, 2.6))
    grid = figure.subplots(1, 2, sharey=True)
    image: Any = None
    for axes, (conditional, title) in zip(grid, KINDS, strict=True):
        found = [[cells.get((target, name, conditional)) for name in across] for target in targets]
        slopes = np.array([[np.nan if cell is None or cell["slope"] is None else cell["slope"]
                            for cell in line] for line in found], float)  # fmt: skip
        image = axes.imshow(slopes.reshape(len(targets), len(across)), cmap=plots.FIELD_CMAP,
                            vmin=-LIMIT, vmax=LIMIT, aspect="auto")  # fmt: skip
        axes.set_title(title, fontsize=10, color=plots.INK)
        axes.set_xticks(range(len(across)), across, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(len(targets)), targets, fontsize=7)
        axes.set_facecolor("#eeeeee")
        axes.axvline(len(targets) - 0.5, color=plots.INK, linewidth=0.8)
        for row, line in enumerate(found):
            for column, cell in enumerate(line):
                if text := _text(cell):
                    dark = abs(slopes[row, column]) > 0.6 * LIMIT
                    axes.text(column, row, text, ha="center", va="center", fontsize=6,
                              color="white" if dark else plots.INK)  # fmt: skip
    bar = figure.colorbar(image, ax=grid, pad=0.02, extend="both")
    bar.set_label("change per change of the target\n(natural standard deviations)", fontsize=8)
    grid[0].set_ylabel("direction walked")
    plots.save(figure, path, dpi=140)


def _text(cell: dict[str, Any] | None) -> str:
    """What stands in a cell."""
    if cell is None or cell["slope"] is None:
        return "·"
    if cell["low"] <= 0 <= cell["high"]:
        return ""
    slope = cell["slope"]
    return f"{slope:.0f}" if abs(slope) >= 9.95 else f"{slope:.1f}"
