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


def _mixed(
    generator: Generator, recipe: Recipe, w: NDArray[np.float32], start: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """W of every layer (B, num_ws, w_dim), of a second style from the crossover on."""
    z2 = generator.sample_z(len(w), recipe["seed"], start, "z2")
    second = generator.map(z2, recipe["psi"]).cpu().numpy()
    crossover = crossovers(generator.num_ws, len(w), recipe["seed"], start)
    later = np.arange(generator.num_ws)[None] >= crossover[:, None]
    w_plus = np.where(later[:, :, None], second[:, None], w[:, None])
    return w_plus, z2.cpu().numpy(), crossover


def draw(
    generator: Generator, look: Look, recipe: Recipe, rows: slice, poll: Callable[[], None]
) -> Samples:
    """Draw and measure samples `rows` of the job: pure in (recipe, rows).

    `rows` must start at a multiple of the batch, because the rounding of a
    convolution may depend on what shares its batch. `poll` is called before
    each batch and may raise.
    """
    kept: dict[str, list[NDArray[Any]]] = {"w": [], "z": [], "values": []}
    if recipe["styles"] == 2:
        kept |= {"z2": [], "crossover": []}
    for batch in batches(rows.stop - rows.start, recipe["batch"]):
        poll()
        first = rows.start + batch.start
        z = generator.sample_z(batch.stop - batch.start, recipe["seed"], first)
        w = generator.map(z, recipe["psi"]).cpu().numpy()
        kept["z"].append(z.cpu().numpy())
        if recipe["styles"] == 2:
            w, z2, crossover = _mixed(generator, recipe, w, first)
            kept["z2"].append(z2)
            kept["crossover"].append(crossover)
        kept["w"].append(w)
        kept["values"].append(look(w)[1])
    return Samples(
        names=recipe["quantities"], units=units(recipe["quantities"]), recipe=recipe,
        start=rows.start, **{name: np.concatenate(each) for name, each in kept.items()},
    )  # fmt: skip
