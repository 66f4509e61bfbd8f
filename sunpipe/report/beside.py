"""Samples of several generators from the same latents, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sunpipe.errors import DataError
from sunpipe.report.pictures import colour_limit, gradient, tile
from sunpipe.report.runfolder import RunFolder

SHOWN = 12  # patches of each run
SEED = 0


def fields(run: RunFolder, count: int = SHOWN) -> tuple[Any, Any]:
    """The newest generator of a run, and its patches of latents 0 to `count` - 1 of seed 0.

    Returns
    -------
    generator : Generator
    fields : ndarray of float32 (count, C, H, W)
        In its units.

    Raises
    ------
    DataError
        No checkpoint that can be loaded.
    """
    from sunpipe.latent.generator import Generator

    try:
        generator = Generator.load(run.folder, "cpu")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{run.name} has no checkpoint that loads: {error}") from None
    parts = [generator.fields(generator.map(generator.sample_z(1, SEED, number))).cpu().numpy()
             for number in range(count)]  # fmt: skip
    return generator, np.concatenate(parts)


def beside(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """What ``vs_samples.html`` shows.

    Raises
    ------
    DataError
        No run has a generator.
    """
    made: list[tuple[RunFolder, Any, Any]] = []
    left_out: list[str] = []
    for run in runs:
        try:
            made.append((run, *fields(run)))
        except DataError as error:
            left_out.append(str(error))
    if not made:
        raise DataError("; ".join(left_out))
    units = {generator.units[0] for _, generator, _ in made}
    common = None
    if len(units) == 1:  # a run that failed does not wash out the others
        limits = [colour_limit([patches[:, 0]]) for _, _, patches in made]
        common = float(np.sort(limits)[(len(limits) - 1) // 2])
    shown = []
    for run, generator, patches in made:
        limit = common if common is not None else colour_limit([patches[:, 0]])
        name = generator.channels[0]
        shown.append({
            "run": run.name, "kimg": generator.kimg, "limit": limit, "channel": name,
            "unit": "G" if generator.units[0] == "Gauss" else generator.units[0],
            "tiles": [tile(patch[0], limit, f"generated {name} of {run.name}, latent {number + 1}")
                      for number, patch in enumerate(patches)],
        })  # fmt: skip
    return {
        "shown": shown, "left_out": left_out, "common": common, "gradient": gradient(),
        "same_z": len({generator.z_dim for _, generator, _ in made}) == 1,
    }  # fmt: skip
