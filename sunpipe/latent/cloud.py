"""The cloud of latents a generator draws: centre, axes, and what their patches measure.

Inversion walks in the cloud's own coordinates, in which it is round: u with
``w = centre + axes u``, of unit variance in every direction (the whitened space of
Zhu et al. 2020, arXiv:2012.09036, section 3.1, without its leaky ReLU). A step is then
so many standard deviations, and the prior is the square of u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sunpipe.errors import DataError
from sunpipe.latent.direction import Floats
from sunpipe.latent.measure import batches, check_names, observer
from sunpipe.latent.sample import samples_path
from sunpipe.latent.samples import read_recipe, read_samples
from sunpipe.paths import Layout
from sunpipe.physics.quantities import QUANTITIES
from sunpipe.settings import Config
from sunpipe.stage import log

if TYPE_CHECKING:
    from sunpipe.latent.generator import Generator

DRAWN = 8192  # latents whose mean and covariance are the cloud's; mapping is cheap
SHOWN = 1024  # patches that are generated and measured where there is no samples.h5
SEARCHED = 4096  # samples, at most, among which the nearest to a patch is looked for
FLAT = 1e-6  # of the largest variance: less is rounding, and is no direction to walk


@dataclass(frozen=True)
class Cloud:
    """Where the latents of a generator lie.

    Attributes
    ----------
    centre : Tensor, shape (w_dim,)
    axes : Tensor, shape (w_dim, K)
        Principal axes times their standard deviations; K leaves out flat ones.
    w : Tensor, shape (N, w_dim) or (N, num_ws, w_dim)
        Latents of known patches, one for each layer in samples of two styles.
    spread : dict
        Quantity to its natural standard deviation, half the width from the 16th to the 84th
        percentile; None where it is constant, or undefined in most patches.
    source : str
        Where `w` and `spread` are from.
    """

    centre: torch.Tensor
    axes: torch.Tensor
    w: torch.Tensor
    spread: dict[str, float | None]
    source: str

    @property
    def names(self) -> list[str]:
        """Quantities that vary and whose gradient means something: what inversion can aim at."""
        return [name for name, spread in self.spread.items()
                if spread is not None and QUANTITIES[name].differentiable]  # fmt: skip

    @property
    def dim(self) -> int:
        """Axes of the cloud (K)."""
        return self.axes.shape[1]

    def to_w(self, u: torch.Tensor) -> torch.Tensor:
        """Cloud coordinates (..., K) to w (..., w_dim)."""
        return self.centre + u @ self.axes.T

    def to_u(self, w: torch.Tensor) -> torch.Tensor:
        """W (..., w_dim) to the coordinates (..., K) of the nearest point that `to_w` reaches."""
        return (w - self.centre) @ (self.axes / self.axes.square().sum(dim=0))

    def length(self, w: torch.Tensor) -> torch.Tensor:
        """Mahalanobis length of w (..., w_dim) over the root of K: about 1 for what is drawn."""
        return self.to_u(w).square().mean(dim=-1).sqrt()


def axes_of(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (D,) and axes (D, K) of latents w (N, D)."""
    exact = w.double()
    centre = exact.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(exact.T))
    kept = values > FLAT * values[-1]
    if not bool(kept.any()):
        raise DataError("the generator maps every z to the same w; nothing can be inverted")
    axes = vectors[:, kept] * values[kept].sqrt()
    return centre.to(w), axes.to(w)


def natural_spread(column: Floats) -> float | None:
    """Half the width from the 16th to the 84th percentile; None when 0 or mostly undefined."""
    defined = column[np.isfinite(column)]
    if len(defined) <= len(column) / 2:
        return None
    low, high = np.percentile(defined, [16, 84])
    return float(high - low) / 2 if high > low else None


def _drawn(
    generator: Generator, cfg: Config, names: list[str], poll: Callable[[], None]
) -> tuple[torch.Tensor, Floats]:
    """Latents of the first seeds and their measured values."""
    look = observer(generator, names, cfg.sample.noise)
    w = generator.map(generator.sample_z(SHOWN, cfg.seed), cfg.sample.psi)
    values = []
    for rows in batches(SHOWN, cfg.sample.batch):
        poll()
        values.append(look(w[rows].cpu().numpy())[1])
    return w, np.concatenate(values)


def _stored(
    generator: Generator, layout: Layout, cfg: Config, names: list[str]
) -> tuple[torch.Tensor, Floats] | None:
    """Latents and values of ``samples.h5``, or None with the reason logged."""
    path = samples_path(layout, cfg.name)
    if not path.exists():
        return None
    recipe = read_recipe(path)
    if recipe.get("generator") != generator.digest:
        log(f"{path} is of another generator; {SHOWN} patches are drawn instead")
        return None
    if lacking := [name for name in names if name not in recipe["quantities"]]:
        log(f"{path} lacks {', '.join(lacking)}; {SHOWN} patches are drawn instead")
        return None
    samples = read_samples(path)
    values = np.stack([samples.column(name) for name in names], axis=1)
    return torch.from_numpy(samples.w).to(generator.device), values


def make_cloud(
    generator: Generator, layout: Layout, cfg: Config, poll: Callable[[], None] = lambda: None
) -> Cloud:
    """The cloud of a generator, from its ``samples.h5`` where there is one, else drawn.

    `poll` is called before each batch and may raise.
    """
    names = check_names(cfg.sample.quantities, "sample.quantities", generator.channels)
    found = _stored(generator, layout, cfg, names)
    source = "drawn" if found is None else "samples.h5"
    w, values = _drawn(generator, cfg, names, poll) if found is None else found
    many = generator.map(generator.sample_z(DRAWN, cfg.seed), cfg.sample.psi)
    centre, axes = axes_of(many)
    spread = {name: natural_spread(column) for name, column in zip(names, values.T, strict=True)}
    return Cloud(centre, axes, w[:SEARCHED], spread, source)
