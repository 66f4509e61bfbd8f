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
from sunpipe.latent.axes import Axes
from sunpipe.latent.calibrate import finite
from sunpipe.latent.direction import Floats
from sunpipe.latent.leakage import natural
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
ROUNDING = 1e-12  # of the centre's square: no less variance has float32


@dataclass(frozen=True)
class Cloud:
    """Where the latents of a generator lie.

    Attributes
    ----------
    centre : Tensor, shape (w_dim,)
    axes : Tensor, shape (w_dim, K)
        Principal axes times their standard deviations, see `axes_of`; K leaves out flat ones.
    w : Tensor, shape (N, w_dim) or (N, num_ws, w_dim)
        Latents of known patches, one for each layer in samples of two styles.
    spread : dict
        Quantity to its natural standard deviation, see `spreads`.
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


def length(u: torch.Tensor) -> float:
    """Mahalanobis length of one latent's cloud coordinates, over the root of their number.

    `u` is (K,) or, one for each layer, (num_ws, K). About 1 for what is drawn.
    """
    return float(u.square().mean().sqrt())


def axes_of(w: Floats) -> tuple[Floats, Floats]:
    """Centre (D,) and axes (D, K) of latents w (N, D), the longest last.

    An axis may as well point the other way, and eigensolvers differ in that: here its
    largest component is positive.

    Raises
    ------
    DataError
        All w are the same but for rounding.
    """
    centre = w.mean(axis=0)
    found = Axes.of(w, np.ones(w.shape[1], bool))
    if not found.variances[-1] > ROUNDING * np.square(centre).max():
        raise DataError("the generator maps every z to the same w; nothing can be inverted")
    kept = found.variances > FLAT * found.variances[-1]
    vectors = found.vectors[:, kept]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    axes = vectors * np.sign(largest) * np.sqrt(found.variances[kept])
    return centre, np.ascontiguousarray(axes)  # as from a file, so that products round alike


def spreads(names: list[str], values: Floats) -> dict[str, float | None]:
    """Natural standard deviation of each column of `values` (N, Q), see `natural`.

    None where a quantity is constant, or undefined in half of the patches or more.
    """
    known = np.isfinite(values).mean(axis=0) > 0.5
    found = finite(np.where(known, natural(values), np.nan))
    return dict(zip(names, found, strict=True))


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
    # numpy on the CPU: the same axes whatever device the generator is on
    centre, axes = (torch.from_numpy(one).to(w) for one in axes_of(many.cpu().double().numpy()))
    return Cloud(centre, axes, w[:SEARCHED], spreads(names, values), source)
