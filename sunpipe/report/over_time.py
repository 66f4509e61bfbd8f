"""Samples over time of several runs: the grids that each drew when it had seen as many images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sunpipe.errors import DataError
from sunpipe.report.progress import grids, small, spaced
from sunpipe.report.runfolder import RunFolder

MOMENTS = 3  # of the training, the last one where the run that ended first ended
WIDTH = 440  # pixels of a grid at most
Grids = list[tuple[float, Path]]


def alike(found: Sequence[Grids], count: int = MOMENTS) -> tuple[list[float], list[list[Any]]]:
    """At most `count` moments that all runs have reached, and the grid of each run there.

    Parameters
    ----------
    found : sequence of list of (kimg, file)
        The grids of each run, in order; at least one of each.

    Returns
    -------
    moments : list of float
        In kimg, those of the run with the fewest grids up to the end of the shortest run.
    chosen : list of list of ((kimg, file) or None)
        Of each run its grid next to each moment; None where it drew none nearer than half
        the way to the next moment.
    """
    end = min(run[-1][0] for run in found)
    reached = [[grid for grid in run if grid[0] <= end] for run in found]
    moments = [kimg for kimg, _ in spaced(min(filter(None, reached), key=len), count)]
    steps = [after - before for before, after in itertools.pairwise(moments)]
    near = min(steps, default=moments[0]) / 2
    chosen = []
    for run in found:
        nearest = [min(run, key=lambda grid, moment=moment: abs(grid[0] - moment))  # type: ignore[misc]
                   for moment in moments]  # fmt: skip
        chosen.append([grid if abs(grid[0] - moment) < near or grid[0] == moment else None
                       for grid, moment in zip(nearest, moments, strict=True)])  # fmt: skip
    return moments, chosen


def over_time(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """What ``vs_progress.html`` shows; a run whose grids cannot be shown is left out, by name."""
    drawn = {run.name: grids(run) for run in runs}
    left_out = [f"{name} has drawn no grid yet" for name, found in drawn.items() if not found]
    names = [name for name, found in drawn.items() if found]
    if not names:
        return {"shown": [], "moments": [], "left_out": left_out}
    moments, chosen = alike([drawn[name] for name in names])
    shown = []
    for name, cells in zip(names, chosen, strict=True):
        try:
            pictures = [None if cell is None else small(cell[1], WIDTH) for cell in cells]
        except DataError as error:
            left_out.append(f"{name}: {error}")
            continue
        shown.append({"run": name, "cells": [
            None if cell is None else {"src": src, "kimg": cell[0],
                                       "alt": f"generated patches of {name} at {cell[0]:g} kimg"}
            for cell, src in zip(cells, pictures, strict=True)]})  # fmt: skip
    return {"shown": shown, "moments": moments, "left_out": left_out}
