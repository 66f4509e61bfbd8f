"""Draw latents, generate their patches, measure them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sunpipe.latent.measure import Look, batches, units
from sunpipe.latent.samples import Recipe, Samples
from sunpipe.shards.order import generator_seed

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator


def crossovers(num_ws: int, count: int, seed: int, start: int = 0) -> NDArray[np.int64]:
    """First layer of the second style of each sample: 1 to ``num_ws - 1``, pure in (seed, number).

    As training's style mixing draws it (Karras et al. 2019, arXiv:1812.04948, section
    3.1), but in every sample.
    """
    import torch

    found = np.empty(count, np.int64)
    for place in range(count):
        source = torch.Generator().manual_seed(generator_seed(seed, 0, start + place, "crossover"))
        found[place] = int(torch.randint(1, num_ws, (), generator=source))
    return found


def latents(generator: Generator, recipe: Recipe, rows: slice) -> dict[str, NDArray[Any]]:
    """The w of some samples, as `Samples` holds them, and what they are made of.

    Parameters
    ----------
    recipe : dict
        Read are ``seed``, ``psi`` and ``styles``.

    Returns
    -------
    dict of str to ndarray
        ``z`` (B, z_dim) and ``w`` (B, w_dim); of two styles also ``z2`` and ``crossover``,
        and ``w`` (B, num_ws, w_dim) is that of every layer: of the second style from the
        crossover on.
    """
    count = rows.stop - rows.start
    z = generator.sample_z(count, recipe["seed"], rows.start)
    w = generator.map(z, recipe["psi"]).cpu().numpy()
    found: dict[str, NDArray[Any]] = {"z": z.cpu().numpy(), "w": w}
    if recipe["styles"] == 2:
        z2 = generator.sample_z(count, recipe["seed"], rows.start, "z2")
        second = generator.map(z2, recipe["psi"]).cpu().numpy()
        crossover = crossovers(generator.num_ws, count, recipe["seed"], rows.start)
        later = np.arange(generator.num_ws)[None] >= crossover[:, None]
        found["w"] = np.where(later[:, :, None], second[:, None], w[:, None])
        found |= {"z2": z2.cpu().numpy(), "crossover": crossover}
    return found


def draw(
    generator: Generator, look: Look, recipe: Recipe, rows: slice, poll: Callable[[], None]
) -> Samples:
    """Draw and measure samples `rows` of the job: pure in (recipe, rows).

    `rows` must start at a multiple of the batch, because the rounding of a
    convolution may depend on what shares its batch. `poll` is called before
    each batch and may raise.
    """
    kept: dict[str, list[NDArray[Any]]] = {}
    for batch in batches(rows.stop - rows.start, recipe["batch"]):
        poll()
        these = slice(rows.start + batch.start, rows.start + batch.stop)
        found = latents(generator, recipe, these)
        for name, each in {**found, "values": look(found["w"])[1]}.items():
            kept.setdefault(name, []).append(each)
    return Samples(
        names=recipe["quantities"], units=units(recipe["quantities"]), recipe=recipe,
        start=rows.start, **{name: np.concatenate(each) for name, each in kept.items()},
    )  # fmt: skip
