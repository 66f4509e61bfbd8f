"""z to w: the mapping network of StyleGAN2 (arXiv:1912.04958)."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from sunpipe.models.ops import Dense, normalize_2nd_moment
from sunpipe.train_settings import ModelSettings


class Mapping(nn.Module):
    """z to w: fully connected layers with a hundredth of the learning rate.

    Attributes
    ----------
    w_avg : Tensor, shape (w_dim,)
        Running mean of w, kept by the trainer.
    """

    w_avg: torch.Tensor

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.z_dim = settings.z_dim
        sizes = [settings.z_dim] + [settings.w_dim] * settings.mapping_layers
        self.layers = nn.ModuleList(
            Dense(inputs, outputs, lr_multiplier=0.01, activate=True)
            for inputs, outputs in itertools.pairwise(sizes)
        )
        self.register_buffer("w_avg", torch.zeros(settings.w_dim))

    def forward(self, z: torch.Tensor, psi: float = 1.0) -> torch.Tensor:
        """(B, z_dim) to (B, w_dim), truncated towards w_avg by `psi`."""
        w = normalize_2nd_moment(z)
        for layer in self.layers:
            w = layer(w)
        return w if psi == 1.0 else torch.lerp(self.w_avg, w, psi)
