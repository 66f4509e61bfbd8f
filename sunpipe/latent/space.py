"""Latent spaces as flat vectors: what a learner sees, and how the generator takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from sunpipe.latent.generator import Generator


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

    def columns(self, dim: int) -> NDArray[np.bool_]:
        """Which of `dim` numbers of a flat latent may move, shape (dim,)."""
        mask = np.ones(dim, bool)
        if self.name == "w_plus" and self.layers:
            mask = np.zeros((self.num_ws, self.w_dim), bool)
            mask[list(self.layers)] = True
        return mask.reshape(-1)

    def to_w(self, generator: Generator, x: torch.Tensor) -> torch.Tensor:
        """Flat latents (B, D) as `Generator.fields` takes them: one w, or one for each layer."""
        if self.name == "z":
            return generator.map(x, self.psi)
        return x if self.name == "w" else x.reshape(len(x), self.num_ws, self.w_dim)
