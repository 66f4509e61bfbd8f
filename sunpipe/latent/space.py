"""Latent spaces as flat vectors: what a learner sees, and how the generator takes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sunpipe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

    from sunpipe.latent.generator import Generator
    from sunpipe.latent.samples import Samples
    from sunpipe.latent_settings import DirectionsSettings


@dataclass(frozen=True)
class Space:
    """One of z, w and w_plus.

    Attributes
    ----------
    name : {"z", "w", "w_plus"}
    num_ws, w_dim : int
        Layers of the generator, and the length of one w.
    layers : tuple of int
        Layers that may move in w_plus; empty means all.
    psi : float
        Truncation of a z on its way to w.
    """

    name: Literal["z", "w", "w_plus"]
    num_ws: int
    w_dim: int
    layers: tuple[int, ...] = ()
    psi: float = 1.0

    @classmethod
    def asked(cls, settings: DirectionsSettings, samples: Samples) -> Space:
        """The space that ``[directions]`` names, of the generator that made the samples.

        Raises
        ------
        ConfigError
            A layer that the generator does not have.
        DataError
            Samples of which the space's latents are not what made the patch.
        """
        layers, recipe = settings.layers, samples.recipe
        num_ws = recipe["num_ws"]
        beyond = [layer for layer in layers if layer >= num_ws]
        if beyond:
            raise ConfigError(
                f"directions.layers: no layer {beyond[0]}; the generator has {num_ws}, from 0 on"
            )
        wanted = 2 if settings.space == "w_plus" else 1
        if recipe["styles"] != wanted:
            raise DataError(
                f"directions.space = {settings.space!r} needs samples of"
                f" {'two styles' if wanted == 2 else 'one style'} each; run sunpipe sample with"
                f" sample.styles = {wanted}, then sunpipe directions fit again"
            )
        return cls(settings.space, num_ws, samples.w.shape[-1], tuple(sorted(layers)),
                   recipe["psi"])  # fmt: skip

    @classmethod
    def read(cls, about: dict[str, Any]) -> Space:
        """The space that `describe` wrote."""
        return cls(**{**about, "layers": tuple(about["layers"])})

    def describe(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "layers": list(self.layers)}

    def columns(self, dim: int) -> NDArray[np.bool_]:
        """Which of `dim` numbers of a flat latent may move, shape (dim,)."""
        mask = np.ones(dim, bool)
        if self.name == "w_plus" and self.layers:
            mask = np.zeros((self.num_ws, self.w_dim), bool)
            mask[list(self.layers)] = True
        return mask.reshape(-1)

    def latents(self, samples: Samples) -> NDArray[np.float32]:
        """Flat latents (N, D) of samples."""
        return samples.z if self.name == "z" else samples.w.reshape(len(samples), -1)

    def to_w(self, generator: Generator, x: torch.Tensor) -> torch.Tensor:
        """Flat latents (B, D) as `Generator.fields` takes them: one w, or one for each layer."""
        if self.name == "z":
            return generator.map(x, self.psi)
        return x if self.name == "w" else x.reshape(len(x), self.num_ws, self.w_dim)
